"""Temporary folders and files that name their owner: what a killed process left is removed by the next one.

A name holds host, process number and start of the process, so nothing has to be written into the folder, and a number that was given to
another process is told apart. What a living process, another host or another account owns is left.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from components.process import is_gone, owner

PREFIX = "retune-"
_OWNER = re.compile(r"(?P<host>[^/]+)-(?P<pid>\d+)-(?P<started>\d+\.\d+)[-.].+")


@contextmanager
def temporary() -> Iterator[Path]:
    """Give an empty folder below the temporary folder, which is removed at the end."""
    folder = make()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make() -> Path:
    """Return a new folder for whoever removes it; the first call of a process sweeps."""
    home = tempfile.gettempdir()
    _sweep_once(home)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{_mine()}-"))


def partial_of(path: Path) -> Path:
    """Return where to write what `path` becomes by a rename, after files that killed processes left for the same folder are removed."""
    sweep(path.parent, f"{PREFIX}*.partial")
    return path.with_name(f"{PREFIX}{_mine()}.{path.name}.partial")


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
    return is_gone(json.dumps({"host": found["host"], "pid": int(found["pid"]), "started": float(found["started"])}))
