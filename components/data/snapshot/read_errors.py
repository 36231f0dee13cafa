"""Collect the faults of one file and raise them together."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from typing import NoReturn

from components.core.errors import BadSource, listed, shorten

MOST = 20
LONGEST_CELL = 1 << 26
"""Maximum characters of a cell, in any format."""
_FAULT_LENGTH = 600  # characters
_REPR_LENGTH = 80  # characters of a name or a value in a message
_LIST_LENGTH = 10  # names in a message


def short_repr(value: object) -> str:
    """Return the repr of a name or a value for a message, truncated."""
    text = repr(value)
    return text if len(text) <= _REPR_LENGTH else f"{text[: _REPR_LENGTH - 1]}… ({len(text):,} characters)"


def short_list(values: Iterable[object]) -> str:
    """Return the first names for a message, and the number of the others."""
    return listed([short_repr(value) for value in values], _LIST_LENGTH)


class Faults:
    """The faults of one file; reading stops after the twentieth."""

    def __init__(self, name: str | PathLike[str]) -> None:
        self.name = name
        self._faults: list[str] = []

    def add(self, fault: str) -> None:
        """Record a fault.

        Raises:
            BadSource: the limit is reached; lists all faults.
        """
        self._faults.append(shorten(fault, _FAULT_LENGTH))
        if len(self._faults) >= MOST:
            self.refuse(f"reading stopped after {MOST} faults")

    def refuse(self, fault: str) -> NoReturn:
        """Raise BadSource with the recorded faults and `fault`, which makes the file unreadable."""
        lines = [*self._faults, shorten(fault, _FAULT_LENGTH)]
        raise BadSource("\n".join(f"{self.name}: {line}" for line in lines))

    def __bool__(self) -> bool:
        return bool(self._faults)

    def raise_if_any(self) -> None:
        """Raise BadSource if there are faults."""
        if self._faults:
            self.refuse(self._faults.pop())


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Translate system errors while a file is read into an error with its name.

    Raises:
        BadSource: the file cannot be read, or changed while it was read.
    """
    try:
        yield
    except OSError as error:
        raise BadSource(f"{name} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadSource(f"{name} was changed while it was read: {error}") from error
