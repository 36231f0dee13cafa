"""A file lock that says who waits for what when it cannot be had."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from components.errors import Unavailable


@contextmanager
def hold(path: Path, timeout: float) -> Iterator[None]:
    """Hold the file lock at `path`.

    Raises:
        Unavailable: another process has held it for `timeout` seconds.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        raise Unavailable(f"{path} has been held by another process for {timeout:g} s; wait for it to end and try again") from None
    try:
        yield
    finally:
        lock.release()
