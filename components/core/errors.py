"""The errors reported to users; kept small and stable, since every stage depends on this file.

A message states what was expected, what was found, and where. Faults of one file are collected and raised once.
Quoted text may have any length and content: every message is shortened and made printable here.
"""

from collections.abc import Sequence

LINES, CHARACTERS = 60, 1_500  # limits of a message and of each of its lines


class RetuneError(Exception):
    """Base of every error that is reported as one message, without a traceback."""

    exit_code = 1

    def __str__(self) -> str:
        return readable_error(super().__str__())


class BadInput(RetuneError):
    """The user's input cannot be used; a retry does not help."""

    exit_code = 2


class BadParams(BadInput):
    """A setting is unknown, of the wrong type, or contradicts another."""


class BadSource(BadInput):
    """The data file cannot be read as a table."""


class BadData(BadInput):
    """The table can be read but not be trained on."""


class BadModel(BadInput):
    """A base or packaged model cannot or must not be loaded."""


class NotFound(RetuneError):
    """The output of an earlier step is missing; the message names the command that writes it."""


class SelfTestFailed(RetuneError):
    """The gates misjudge models with known results; there is no verdict."""


class StageFailed(RetuneError):
    """A DVC stage failed; contains the stage's own message."""


class Unavailable(RetuneError):
    """A resource is busy or unreachable; the only error for which a retry can succeed."""

    exit_code = 75


class Cancelled(KeyboardInterrupt):
    """A person or a scheduler ended the run.

    A signal raises it at any point, so it is no `Exception`: handlers of errors must not take it for a failure of what they call.
    """

    exit_code = 130


def first_line(error: Exception) -> str:
    """Return the first non-empty line of an error, cut at 500 characters, or the name of its type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:500]


def shorten(text: str, limit: int) -> str:
    """Return `text` in at most `limit` characters; an ellipsis replaces the rest."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def listed(names: Sequence[object], most: int, separator: str = ", ") -> str:
    """Return the first `most` names for a message, and the number of the others."""
    return separator.join(map(str, names[:most])) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def readable_error(text: str) -> str:
    """Return a message of at most LINES lines with CHARACTERS each; unprintable characters are escaped."""
    lines = text.split("\n")
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"… and {len(lines) - LINES + 1:,} more lines"]
    return "\n".join(_printable(_cut_middle(line)) for line in lines)


def _cut_middle(line: str) -> str:
    """Cut the middle of a long line, since its end names the next step."""
    if len(line) <= CHARACTERS:
        return line
    first, last = CHARACTERS * 3 // 5, CHARACTERS // 4
    return f"{line[:first]} … {len(line) - first - last:,} characters … {line[-last:]}"


def _printable(line: str) -> str:
    return line if line.isprintable() else "".join(char if char.isprintable() or char == "\t" else repr(char)[1:-1] for char in line)
