"""Escape user text for Markdown that Prefect, MLflow or a messenger renders."""

import html
import re

_SPECIAL = re.compile(r"[\\`*\[\]|~!#]|(?<!\w)_|_(?!\w)")  # special anywhere in a line
_BULLET = re.compile(r"^(?=[-+=](?:\s|$))|^(\d+)(?=[.)](?:\s|$))")  # special at the start of a line
_ESCAPED = re.compile(r"\\([\\`*\[\]|~!#_+=.)-])")


def escape(text: object) -> str:
    """Escape HTML and Markdown markup in `text`; line breaks stay."""
    lines = html.escape(str(text), quote=False).splitlines()
    return "\n".join(_BULLET.sub(r"\1\\", _SPECIAL.sub(r"\\\g<0>", line.lstrip())) for line in lines)


def cell(text: object) -> str:
    """Escape `text` for one table cell."""
    return " ".join(escape(text).split())


def unescape(text: str) -> str:
    """Undo `escape`."""
    return html.unescape(_ESCAPED.sub(r"\1", text))
