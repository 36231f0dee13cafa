"""Detect files that change while they are read: the rows would mix two versions."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from components.core.errors import RetuneError, Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")
Stamp = tuple[int, int, int, int]
"""Device, inode, size in bytes, and modification time in nanoseconds."""
Relist = Callable[[], Sequence[Path]] | None
"""Lists the files of a source again."""


class SourceChanged(Unavailable):
    """A source changed while it was read."""


def read_twice(read: Callable[[], T]) -> T:
    """Read a source, and read it again if it changed meanwhile."""
    try:
        return read()
    except SourceChanged as error:
        log.warning("%s; reading it again", error)
        return read()


def read_unchanged(files: Iterable[Path], relist: Relist, read: Callable[[], T]) -> T:
    """Call `read` and check that `files` did not change meanwhile.

    Raises:
        SourceChanged: a file changed; replaces the error of `read`, which may be a consequence.
    """
    before = {path: _stamp(path) for path in files}
    try:
        result = read()
    except Unavailable:
        raise
    except Exception as error:  # a reader can fail in any way on a replaced file
        _raise_if_changed(before, relist, error)
        raise
    _raise_if_changed(before, relist)
    return result


def find_change(before: Mapping[Path, Stamp | None], relist: Relist) -> str | None:
    """Return which file differs from its stamp in `before`, and how; None if all are unchanged."""
    try:
        now = {path: _stamp(path) for path in (before if relist is None else relist())}
    except (RetuneError, OSError) as error:
        return str(error)
    for path in {**before, **now}:
        if path not in before:
            return f"{path} was added while the source was read"
        old, new = before[path], now.get(path)
        if new is None:
            return f"{path} was removed while it was read"
        if old != new:
            sizes = "" if old is None or old[2] == new[2] else f", from {old[2]:,} to {new[2]:,} bytes"
            return f"{path} was changed while it was read{sizes}"
    return None


def _raise_if_changed(before: Mapping[Path, Stamp | None], relist: Relist, cause: Exception | None = None) -> None:
    if change := find_change(before, relist):
        raise SourceChanged(
            f"{change}, so the rows would mix two versions; take the snapshot while nothing writes there, or write to a temporary name "
            "and rename"
        ) from cause


def _stamp(path: Path) -> Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
