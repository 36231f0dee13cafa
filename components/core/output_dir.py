"""Output folders, which a step empties and refills, and state folders, which other accounts cannot read."""

import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OTHERS, _GROUP_TOO = 0o007, 0o077
_STATE = ("*.db", "*.db-*", "*.db.*", "*.log", "*.json", "*.jsonl")  # databases with journals, logs, addresses


def fresh(out: Path) -> Path:
    """Create `out` or empty it, and return it."""
    if out.is_symlink() or out.is_file():
        out.unlink()
    elif out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    return out


def closed_to(folder: Path) -> int:
    """Return the mode bits to remove from state files in `folder`, which may not exist yet.

    State belongs to its owner only. A folder shared with a group on purpose stays shared: it has the set-group-id bit
    (`chmod g+s`), or is writable by a group that is not its owner's primary group.
    """
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        status = folder.stat()
        primary = pwd.getpwuid(status.st_uid).pw_gid
    except (OSError, KeyError):
        return _GROUP_TOO
    group_writes = status.st_mode & stat.S_IWGRP and not status.st_mode & stat.S_IWOTH
    shared = status.st_mode & stat.S_ISGID or (group_writes and status.st_gid != primary)
    return _OTHERS if shared else _GROUP_TOO


@contextmanager
def private(folder: Path) -> Iterator[None]:
    """Set the umask for state in `folder` while the block runs, for this process and its children."""
    before = os.umask(closed_to(folder))
    try:
        yield
    finally:
        os.umask(before)


def make_private(folder: Path) -> None:
    """Create a state folder and its parents, unless it exists."""
    if not folder.is_dir():
        with private(folder):
            folder.mkdir(parents=True, exist_ok=True)


def open_log(path: Path) -> int:
    """Open a private log for appending and return the descriptor."""
    with private(path.parent):
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)


def close_to_others(var: Path) -> None:
    """Remove the permissions that earlier releases gave other accounts on a state folder, its databases and its logs.

    Files of another account or on a read-only disk stay unchanged.
    """
    with suppress(OSError):
        if var.is_symlink() or not var.is_dir():
            return
        closed = closed_to(var)
        # Root runs PostgreSQL as another user, which needs to pass through to var/stack.
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
        status = path.stat()
        if status.st_uid == os.geteuid() and status.st_mode & closed:
            path.chmod(stat.S_IMODE(status.st_mode) & ~closed)
