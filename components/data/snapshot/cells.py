"""Convert any value to the text of a cell: the same value has the same text for every reader, file and type."""

import json
import math
import re
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

_ZONED = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d(:?\d\d)?)")
_ZONED_LENGTHS = range(len("2026-02-28T07:30Z"), len("2026-02-28T07:30:00.000000+00:00") + 1)


def as_text(value: Any) -> str | None:
    """Return a value as text: null and NaN stay null, 7, 7.0 and Decimal("7.00") are "7", true is "true", lists and objects are JSON.

    A number has all its digits, no exponent and no trailing zeros. A time with a zone is in UTC.

    Raises:
        ValueError: the value is bytes, whose encoding is unknown.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Decimal) and value.is_finite():
        return _digits(value)
    plain = _plain(value)
    if plain is None or isinstance(plain, str):
        return plain
    return _digits(Decimal(repr(plain))) if isinstance(plain, float) else json.dumps(plain, ensure_ascii=False)


def in_utc(text: str) -> str:
    """Return a text that is a time with a zone as that time in UTC, so that an instant has one text in every source; else the text."""
    if len(text) in _ZONED_LENGTHS and text[4] == "-" and _ZONED.fullmatch(text):
        with suppress(ValueError, OverflowError):  # no such day, or before the year 1
            return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    return text


def _digits(number: Decimal) -> str:
    text = format(number, "f") if number else "0"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _plain(value: Any) -> Any:
    """Return a value as JSON stores it: whole numbers as integers, NaN as null, and types that JSON lacks as text."""
    if isinstance(value, np.floating):
        value = float(str(value))  # the shortest digits that identify it, for float32 too
    elif isinstance(value, np.integer | np.bool_):
        value = value.item()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float | Decimal):
        return _number(value)
    if isinstance(value, bytes | bytearray | memoryview):
        raise ValueError("binary data, expected text or numbers")
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):  # pandas' subclass, which Arrow returns for nanoseconds, has another format
        return str(timedelta(value.days, value.seconds, value.microseconds))
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    return str(value)


def _number(value: float | Decimal) -> Any:
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return int(value) if value == int(value) else float(value)
