"""The faults of one file: collected, and raised once."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

from components.errors import BadSource

MOST = 20


class Faults:
    """What is wrong with one file; the twentieth fault ends the reading."""

    def __init__(self, called: str | PathLike[str]) -> None:
        self._called = called
        self._found: list[str] = []

    def add(self, fault: str) -> None:
        """Note a fault.

        Raises:
            BadSource: with all faults, when there are as many as a reader can use.
        """
        self._found.append(fault)
        if len(self._found) >= MOST:
            self._found.append(f"reading stopped after {MOST} faults")
            self.settle()

    def settle(self) -> None:
        """Raise BadSource when there are faults."""
        if self._found:
            raise BadSource("\n".join(f"{self._called}: {fault}" for fault in self._found))


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
