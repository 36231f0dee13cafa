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
"""


class RetuneError(Exception):
    """Base of every error that is reported as one message, without a traceback."""

    exit_code = 1


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


class NotThere(RetuneError):
    """Something that an earlier step makes is missing."""


class GatesUnable(RetuneError):
    """The gates decide wrongly about models whose truth is known."""


class StageFailed(RetuneError):
    """A DVC stage ended with an error."""


class Unavailable(RetuneError):
    """A resource is busy or out of reach; a retry can mend it."""

    exit_code = 75


class Cancelled(RetuneError):
    """A person or a scheduler ended the run."""

    exit_code = 130
