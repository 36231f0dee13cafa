"""The faults of one file: collected, and raised once."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike

from components.core.errors import BadSource, Unavailable

MOST = 20
LONGEST_CELL = 1 << 26
"""Characters of a cell at most, in any format."""
_SHOWN = 600  # characters of one fault
_NAME = 80  # characters of a name or a value in a message
_NAMES = 10  # of a list in a message


class Changed(Unavailable):
    """A source is another one than when its reading began."""


def shown(value: object) -> str:
    """Return a name or a value for a message: as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _NAME else f"{text[: _NAME - 1]}… ({len(text):,} characters)"


def listed(values: Iterable[object]) -> str:
    """Return names for a message, the first of them where there are many."""
    every = list(values)
    more = f" and {len(every) - _NAMES:,} more" if len(every) > _NAMES else ""
    return ", ".join(map(shown, every[:_NAMES])) + more


class Faults:
    """What is wrong with one file; the twentieth fault ends the reading."""

    def __init__(self, called: str | PathLike[str]) -> None:
        self.called = called
        self._found: list[str] = []

    def add(self, fault: str) -> None:
        """Note a fault.

        Raises:
            BadSource: with all faults, when there are as many as a reader can use.
        """
        self._found.append(fault if len(fault) <= _SHOWN else f"{fault[:_SHOWN]}…")
        if len(self._found) >= MOST:
            self._found.append(f"reading stopped after {MOST} faults")
            self.settle()

    def __bool__(self) -> bool:
        """Say whether there are any."""
        return bool(self._found)

    def settle(self) -> None:
        """Raise BadSource when there are faults."""
        if self._found:
            raise BadSource("\n".join(f"{self.called}: {fault}" for fault in self._found))


@contextmanager
def readable(called: str) -> Iterator[None]:
    """Turn what the system says of a file that is being read into one error that names it.

    Raises:
        BadSource: it cannot be read, or changed meanwhile.
    """
    try:
        yield
    except OSError as error:
        raise BadSource(f"{called} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadSource(f"{called} was changed while it was read: {error}") from error
