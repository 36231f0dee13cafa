"""Temporary folders and files that name their owner: what a killed process left is removed by the next one.

A name holds host, process number and start of the process, so nothing has to be written into the folder, and a number that was given to
another process is told apart. What a living process, another host or another account owns is left. Its owner also holds a lock on it, which
ends with the process: numbers of processes mean nothing to another container, and the start of one moves with the clock.
"""

import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from components.core.process import is_gone, owner

PREFIX = "retune-"
_OWNER = re.compile(r"(?P<host>[^/]+)-(?P<pid>\d+)-(?P<started>\d+\.\d+)[-.].+")
_HELD: dict[Path, int] = {}  # the descriptor that holds the lock of what this process made


@contextmanager
def temporary(most: int | None = None) -> Iterator[Path]:
    """Give an empty folder below the temporary folder, which is removed at the end.

    Where its path would have more than `most` bytes, it is a folder below /tmp that does not name its owner: a socket's path is limited.
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
    """Return a new folder for whoever calls `remove`; the first call of a process sweeps."""
    home = tempfile.gettempdir()
    _sweep_once(home)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{_mine()}-"))
    _hold(folder, os.O_RDONLY)
    return folder


def remove(folder: Path) -> None:
    """Remove a folder of `make`."""
    shutil.rmtree(folder, ignore_errors=True)
    _let_go(folder)


def outlives_this_program(folder: Path) -> None:
    """Let what this process becomes by exec hold a folder of `make`."""
    if folder in _HELD:
        os.set_inheritable(_HELD[folder], True)


@contextmanager
def partial_of(path: Path) -> Iterator[Path]:
    """Give the file to write, which becomes `path` at the end; files that killed processes left in its folder are removed."""
    sweep(path.parent, f"{PREFIX}*.partial")
    partial = path.with_name(f"{PREFIX}{_mine()}.{path.name}.partial")
    _hold(partial, os.O_RDWR | os.O_CREAT)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
        _let_go(partial)


def _hold(path: Path, flags: int) -> None:
    _HELD[path] = os.open(path, flags, 0o666)
    with suppress(OSError):  # a file system without locks
        fcntl.flock(_HELD[path], fcntl.LOCK_EX)


def _let_go(path: Path) -> None:
    if (held := _HELD.pop(path, None)) is not None:
        os.close(held)


def sweep(home: Path, pattern: str = f"{PREFIX}*") -> None:
    """Remove what matches `pattern` in a folder, is ours and has no living owner."""
    for left in home.glob(pattern):
        if not _abandoned(left):
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@cache
def _sweep_once(home: str) -> None:
    sweep(Path(home))


def _mine() -> str:
    try:
        who = json.loads(owner())
    except ImportError:  # a package is loaded where psutil may be missing; whoever loads it removes its folders
        return "nobody"
    return f"{who['host']}-{who['pid']}-{who['started']}"


def _abandoned(path: Path) -> bool:
    found = _OWNER.fullmatch(path.name.removeprefix(PREFIX))
    try:
        stat = path.lstat()
    except OSError:  # another process removed it
        return False
    if found is None or path.is_symlink() or stat.st_uid != os.getuid():
        return False
    try:
        gone = is_gone(json.dumps({"host": found["host"], "pid": int(found["pid"]), "started": float(found["started"])}))
    except ImportError:  # as above: nobody can tell
        return False
    return gone and not _is_held(path)


def _is_held(path: Path) -> bool:
    """Say whether a process holds the lock of a folder or file, or nobody can tell."""
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
