"""Folders: a step's output, which it empties and never edits in place; and state, which other accounts of the machine do not see."""

import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OTHERS, _GROUP_TOO = 0o007, 0o077
_STATE = ("*.db", "*.db-*", "*.db.*", "*.log", "*.json", "*.jsonl")  # of a folder of state: databases with their journals, logs, addresses


def fresh(out: Path) -> Path:
    """Empty `out`, make it if it is not there, and return it."""
    if out.is_symlink() or out.is_file():
        out.unlink()
    elif out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    return out


def closed_to(folder: Path) -> int:
    """Return the bits of a mode that state in `folder`, which need not be there yet, does not have.

    State is its owner's alone. A folder that was opened to a group on purpose stays open to it: the set-group-id bit says so
    (`chmod g+s`), or a group that is not its owner's own and may write.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        found = folder.stat()
        own = pwd.getpwuid(found.st_uid).pw_gid
    except (OSError, KeyError):
        return _GROUP_TOO
    shared = found.st_mode & stat.S_ISGID or (found.st_mode & stat.S_IWGRP and found.st_gid != own and not found.st_mode & stat.S_IWOTH)
    return _OTHERS if shared else _GROUP_TOO


@contextmanager
def private(folder: Path) -> Iterator[None]:
    """Let what the block makes, in this process and its children, be closed to whom state in `folder` is closed to."""
    before = os.umask(closed_to(folder))
    try:
        yield
    finally:
        os.umask(before)


def make_private(folder: Path) -> None:
    """Make a folder of state, with the folders above it, unless it is there."""
    if not folder.is_dir():
        with private(folder):
            folder.mkdir(parents=True, exist_ok=True)


def open_log(path: Path) -> int:
    """Open a log of a service for appending, made for its owner alone; return the descriptor."""
    with private(path.parent):
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)


def close_to_others(var: Path) -> None:
    """Take from a folder of state, its databases and its logs the rights that an earlier release left to other accounts.

    What another account owns, or a disk that cannot be written, is left as it is.
    """
    with suppress(OSError):
        if var.is_symlink() or not var.is_dir():
            return
        closed = closed_to(var)
        # PostgreSQL, which root runs as another user, has to pass through on the way to var/stack.
        passage = 0o011 if os.geteuid() == 0 and (var / "stack").is_dir() else 0
        _close(var, closed & ~passage)
        for folder in (var, var / "prefect", var / "services", var / "optuna"):
            if folder != var and folder.is_dir():
                _close(folder, closed)
            for pattern in _STATE:
                for path in folder.glob(pattern):
                    if path.is_file() and not path.is_symlink():
                        _close(path, closed)


def _close(path: Path, closed: int) -> None:
    with suppress(OSError):
        found = path.stat()
        if found.st_uid == os.geteuid() and found.st_mode & closed:
            path.chmod(stat.S_IMODE(found.st_mode) & ~closed)
