"""Temporary folders and files named after their owner, so that the next process can delete those of killed processes.

A name contains host, process id and start time; nothing needs to be written inside, and a reused process id is detected. Those of a
running process or another account stay, and those of another host, except files that are a week old. The owner also holds a lock on
them that ends with the process, because process ids mean nothing in another container and start times move with the clock.
"""

import fcntl
import itertools
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from components.core.process import is_gone, owner

PREFIX = "retune-"
_OWNER = re.compile(r"(?P<host>[^/]+)-(?P<pid>\d+)-(?P<started>\d+\.\d+)[-.].+")
_LOCKED: dict[Path, int] = {}  # the descriptor that locks each path of this process
_NUMBERS = itertools.count()
_OTHER_HOSTS = 7 * 86_400.0  # seconds until a file of another host, e.g. of a container, is deleted


@contextmanager
def temporary(most: int | None = None) -> Iterator[Path]:
    """Yield an empty temporary folder, which is deleted at the end.

    If its path has more than `most` bytes, use an ownerless folder in /tmp instead, since paths of sockets are limited.
    """
    folder = make()
    if most is not None and len(os.fsencode(folder)) > most:
        remove(folder)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
    try:
        yield folder
    finally:
        remove(folder)


def make() -> Path:
    """Return a new folder that the caller deletes with `remove`; the first call of a process also sweeps."""
    _sweep_once(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{_owner_name()}-"))
    _lock(folder)
    return folder


def make_file(folder: Path, ending: str, mode: int, *, locked: bool = True) -> Path:
    """Return a new empty file in `folder` whose name ends with `ending`, to be deleted with `remove`.

    Do not lock a file that SQLite fills: on a network file system the lock would exclude it. The first call of a process for a folder also
    deletes files with the same last suffix that killed processes have left there, and those that SQLite had written beside them.
    """
    _sweep_once(folder, f"{PREFIX}*{Path(ending).suffix}*")
    file = folder / f"{PREFIX}{_owner_name()}-{next(_NUMBERS)}{ending}"
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    if locked:
        _lock(file)
    return file


def remove(path: Path) -> None:
    """Delete a folder of `make` or a file of `make_file`."""
    _delete(path)
    if (descriptor := _LOCKED.pop(path, None)) is not None:
        os.close(descriptor)


def keep_after_exec(folder: Path) -> None:
    """Keep the lock on a folder of `make` when this process becomes another program by exec."""
    if folder in _LOCKED:
        os.set_inheritable(_LOCKED[folder], True)


def _lock(path: Path) -> None:
    _LOCKED[path] = os.open(path, os.O_RDONLY)
    with suppress(OSError):  # the file system has no locks
        fcntl.flock(_LOCKED[path], fcntl.LOCK_EX)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sweep(home: Path, pattern: str = f"{PREFIX}*") -> None:
    """Delete the paths in a folder that match `pattern`, belong to this account and whose owner process has ended."""
    for path in filter(_is_abandoned, home.glob(pattern)):
        _delete(path)


_sweep_once = cache(sweep)


def _owner_name() -> str:
    try:
        process = json.loads(owner())
    except ImportError:  # psutil may be missing where a package is loaded; its loader deletes the folders
        return f"nobody-{os.getpid()}"
    return f"{process['host']}-{process['pid']}-{process['started']}"


def _is_abandoned(path: Path) -> bool:
    match = _OWNER.fullmatch(path.name.removeprefix(PREFIX))
    try:
        stat = path.lstat()
    except OSError:  # another process deleted it
        return False
    if match is None or path.is_symlink() or stat.st_uid != os.getuid():
        return False
    if match["host"] != socket.gethostname():
        return path.is_file() and stat.st_mtime < time.time() - _OTHER_HOSTS and not _is_locked(path)
    try:
        tag = json.dumps({"host": match["host"], "pid": int(match["pid"]), "started": float(match["started"])})
        return is_gone(tag) and not _is_locked(path)
    except ImportError:  # psutil is missing, as above
        return False


def _is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a folder or file, or this cannot be determined."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
