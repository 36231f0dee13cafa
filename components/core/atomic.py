"""Pinned folders: what an effect takes from outside (data, base model) is filled aside and swapped in by a rename.

A full disk or a kill at any moment leaves the earlier folder as it was.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.core.errors import RetuneError, Unavailable

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def aside(out: Path) -> Iterator[Path]:
    """Give an empty folder beside `out` to fill; it is removed at the end unless `swap` has moved it.

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
        if error.errno in _FULL:
            raise Unavailable(f"no room to write {out} ({error.strerror}); what was there before is untouched; {_free(out)}") from error
        raise RetuneError(f"{out} cannot be written: {error}; what was there before is untouched") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def swap(partial: Path, out: Path) -> None:
    """Put the filled folder in the place of `out`; `recover` mends a kill between the two renames."""
    earlier = _earlier(out)
    shutil.rmtree(earlier, ignore_errors=True)
    if out.exists():
        os.rename(out, earlier)
    os.rename(partial, out)
    shutil.rmtree(earlier, ignore_errors=True)


def recover(out: Path) -> None:
    """Mend what a killed run left beside `out`: bring the earlier folder back, and remove half-filled ones."""
    earlier = _earlier(out)
    if earlier.exists() and not out.exists():
        os.rename(earlier, out)
    shutil.rmtree(earlier, ignore_errors=True)
    for left in out.parent.glob(f".{out.name}.*.partial"):
        pid = left.name.removesuffix(".partial").rpartition(".")[2]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _earlier(out: Path) -> Path:
    return out.parent / f".{out.name}.earlier"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _free(out: Path) -> str:
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    return f"{shutil.disk_usage(folder).free / 2**20:,.0f} MiB are free in {folder}"
