"""The errors that a user can meet; small and stable, since every stage depends on it.

    RetuneError              exit code 1
    ├── BadInput             exit code 2: what the user gave cannot be used, and a retry will not mend it
    │   ├── BadParams        a setting is unknown, of the wrong type, or contradicts another
    │   ├── BadSource        the data file cannot be read as a table
    │   ├── BadData          the table can be read, and is not fit to train on
    │   └── BadModel         the base model or a packaged model cannot or must not be loaded
    ├── NotThere             something that an earlier step makes is missing; the message names the command
    ├── GatesUnable          the gates decide wrongly about models whose truth is known; no verdict is reached
    ├── StageFailed          a DVC stage ended with an error; carries the stage's own message
    ├── Unavailable          exit code 75: a resource is busy or out of reach; the only error worth a retry
    └── Cancelled            exit code 130: a person or a scheduler ended the run

A message says what was expected, what was found, and where to look. Faults of one file are collected and raised once.
What it quotes may be of any length and hold anything: it is shortened and made visible here, where every message passes.
"""

LINES, CHARACTERS = 60, 1_500  # of a message, and of one line of it


class RetuneError(Exception):
    """Base of every error that is reported as one message, without a traceback."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the message, short and legible whatever it quotes."""
        return readable_error(super().__str__())


class BadInput(RetuneError):
    """What the user gave cannot be used."""

    exit_code = 2


class BadParams(BadInput):
    """A setting is unknown, of the wrong type, or contradicts another."""


class BadSource(BadInput):
    """The data file cannot be read as a table."""


class BadData(BadInput):
    """The table can be read, and is not fit to train on."""


class BadModel(BadInput):
    """A model cannot or must not be loaded."""


class NotFound(RetuneError):
    """Something that an earlier step makes is missing."""


class SelfTestFailed(RetuneError):
    """The gates decide wrongly about models whose truth is known."""


class StageFailed(RetuneError):
    """A DVC stage ended with an error."""


class Unavailable(RetuneError):
    """A resource is busy or out of reach; a retry can mend it."""

    exit_code = 75


class Cancelled(RetuneError):
    """A person or a scheduler ended the run."""

    exit_code = 130


def first_line(error: Exception) -> str:
    """Return the first non-empty line of an error, cut at 500 characters, or the name of its type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:500]


def shorten(text: str, limit: int) -> str:
    """Return `text` in at most `limit` characters; an ellipsis replaces the rest."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def readable_error(text: str) -> str:
    """Return a message of at most LINES lines with CHARACTERS each, in which what cannot be seen is written as its code point."""
    lines = text.split("\n")
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], f"… and {len(lines) - LINES + 1:,} more lines"]
    return "\n".join(_visible(_cut(line)) for line in lines)


def _cut(line: str) -> str:
    """Leave out the middle of a long line: its end names the next step."""
    if len(line) <= CHARACTERS:
        return line
    first, last = CHARACTERS * 3 // 5, CHARACTERS // 4
    return f"{line[:first]} … {len(line) - first - last:,} characters … {line[-last:]}"


def _visible(line: str) -> str:
    return line if line.isprintable() else "".join(one if one.isprintable() or one == "\t" else repr(one)[1:-1] for one in line)
