"""Atomic writes: after a kill or on a full disk, a file or folder is either complete or unchanged."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.core.errors import RetuneError, Unavailable
from components.core.process import is_alive
from components.core.temporary import make_file, remove

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def replacing(path: Path, mode: int = 0o666, *, locked: bool = True) -> Iterator[Path]:
    """Yield an empty file of this process to fill; it replaces `path` if the block succeeds and is removed otherwise.

    It has `mode` without the bits of the umask; a read-only file can be written until it replaces `path`. With `locked`, no other process
    takes it for one of a killed process; not for a file that SQLite fills.
    """
    partial = make_file(path.parent, f".{path.name}.partial", mode | 0o600, locked=locked)
    try:
        yield partial
        if missing := 0o600 & ~mode:
            partial.chmod(partial.stat().st_mode & 0o777 & ~missing)
        os.replace(partial, path)
    finally:
        remove(partial)


def write_bytes(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write a file atomically; `mode` as in `replacing`."""
    with replacing(path, mode) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str, mode: int = 0o666) -> None:
    """Write a UTF-8 text file atomically; `mode` as in `replacing`."""
    write_bytes(path, text.encode(), mode)


@contextmanager
def aside(out: Path) -> Iterator[Path]:
    """Yield an empty folder next to `out` to fill; it is removed at the end unless `swap` has moved it.

    Raises:
        Unavailable: the disk is full.
        RetuneError: the folder cannot be written.
    """
    partial = out.parent / f".{out.name}.{os.getpid()}.partial"
    try:
        recover(out)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
    except OSError as error:
        if error.errno in DISK_FULL:
            raise Unavailable(f"no room to write {out} ({error.strerror}); its previous content is unchanged; {_free(out)}") from error
        raise RetuneError(f"{out} cannot be written: {error}; its previous content is unchanged") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def swap(partial: Path, out: Path) -> None:
    """Replace the folder `out` by the filled folder; `recover` repairs a kill between the two renames."""
    previous = _previous(out)
    shutil.rmtree(previous, ignore_errors=True)
    if out.exists():
        os.rename(out, previous)
    os.rename(partial, out)
    shutil.rmtree(previous, ignore_errors=True)


def recover(out: Path) -> None:
    """Repair what a killed run left next to `out`: restore the previous folder and remove partial ones."""
    previous = _previous(out)
    if previous.exists() and not out.exists():
        os.rename(previous, out)
    shutil.rmtree(previous, ignore_errors=True)
    for partial in out.parent.glob(f".{out.name}.*.partial"):
        pid = partial.name.removesuffix(".partial").rpartition(".")[2]
        if pid.isdigit() and not is_alive(int(pid)):
            shutil.rmtree(partial, ignore_errors=True)


def _previous(out: Path) -> Path:
    return out.parent / f".{out.name}.earlier"


def _free(out: Path) -> str:
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    return f"{shutil.disk_usage(folder).free / 2**20:,.0f} MiB are free in {folder}"
