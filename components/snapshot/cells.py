"""Any value as the text of a cell."""

import json
from datetime import date, time
from typing import Any


def as_text(value: Any) -> str | None:
    """Return a value as text: null stays null, 7 is "7", true is "true", a list or an object is JSON.

    Raises:
        ValueError: for bytes, which are no text in any encoding that we could know.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        raise ValueError("binary data, expected text or numbers")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False, default=as_text)
    return str(value)
