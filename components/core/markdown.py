"""Text of users inside Markdown that other programs render: Prefect, MLflow, a messenger. It is shown as it is, and no HTML."""

import html
import re

_SPECIAL = re.compile(r"[\\`*\[\]|~!#]|(?<!\w)_|_(?!\w)")  # what means something to Markdown, wherever it stands
_BULLET = re.compile(r"^(?=[-+=](?:\s|$))|^(\d+)(?=[.)](?:\s|$))")  # what means something where a line begins
_ESCAPED = re.compile(r"\\([\\`*\[\]|~!#_+=.)-])")


def escape(text: object) -> str:
    """Return text that Markdown shows as it is: no HTML, link, picture, emphasis or table cell; line breaks stay."""
    lines = html.escape(str(text), quote=False).splitlines()
    return "\n".join(_BULLET.sub(r"\1\\", _SPECIAL.sub(r"\\\g<0>", line.lstrip())) for line in lines)


def cell(text: object) -> str:
    """Return text as one cell of a table."""
    return " ".join(escape(text).split())


def unescape(text: str) -> str:
    """Return the text that `escape` was given."""
    return html.unescape(_ESCAPED.sub(r"\1", text))
