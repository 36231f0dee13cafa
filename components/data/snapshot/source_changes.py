"""Whether files are still those that they were: what is read while it is written would be a mixture of two versions."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from components.core.errors import RetuneError

Stamp = tuple[int, int, int, int]
"""Device, inode, bytes, and the time of the last change in nanoseconds."""


def file_stamps(files: Iterable[Path]) -> dict[Path, Stamp | None]:
    """Return the stamp of each file, None where there is none any more."""
    return {path: _stamp(path) for path in files}


def difference(before: Mapping[Path, Stamp | None], listed: Callable[[], Sequence[Path]] | None) -> str | None:
    """Say which file is another one than it was `before`; `listed` finds the files of the source again. None where all are the same."""
    try:
        now = file_stamps(before if listed is None else listed())
    except (RetuneError, OSError) as error:
        return str(error)
    for path in {**before, **now}:
        if path not in before:
            return f"{path} was added while the source was read"
        was, found = before[path], now.get(path)
        if found is None:
            return f"{path} was removed while it was read"
        if was != found:
            sizes = "" if was is None or was[2] == found[2] else f", from {was[2]:,} to {found[2]:,} bytes"
            return f"{path} was changed while it was read{sizes}"
    return None


def _stamp(path: Path) -> Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
