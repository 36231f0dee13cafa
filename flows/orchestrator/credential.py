"""The credential of the servers that Retune starts: one line USER:PASSWORD in var/prefect/auth, which its owner alone may read."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from components.core.errors import RetuneError
from components.core.output_dir import closed_to, make_private, private

FILE = Path("prefect/auth")  # below var/
USER = "retune"


def make(var: Path) -> str:
    """Return the credential of the servers over `var`, made up where there is none yet.

    Raises:
        RetuneError: it belongs to another account.
    """
    if known := read(var):
        return known
    path = var / FILE
    make_private(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    with private(path.parent), partial.open("x", encoding="ascii") as file:
        file.write(f"{USER}:{secrets.token_urlsafe(32)}\n")
    try:
        os.link(partial, path)  # the first of several processes decides
    except FileExistsError:
        if read(var) is None:  # it is empty or damaged
            partial.replace(path)
    except OSError:  # a disk without links
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    known = read(var)
    if known is None:
        raise RetuneError(f"{path} is no line USER:PASSWORD; delete it, and the next start makes it anew")
    return known


def read(var: Path) -> str | None:
    """Return the credential; None where there is none. A file that others may read is closed to them, but for a group that shares `var`.

    Raises:
        RetuneError: it belongs to another account.
    """
    path = var / FILE
    try:
        found = path.stat()
        if found.st_mode & closed_to(path.parent):
            if os.geteuid() not in (0, found.st_uid):
                raise PermissionError
            with suppress(OSError):  # a disk without modes
                path.chmod(0o666 & ~closed_to(path.parent))
        user, colon, password = path.read_text(encoding="ascii").strip().partition(":")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        return None
    except PermissionError:
        raise RetuneError(f"{path} belongs to another account: run `retune` as the account that owns {var}") from None
    return f"{user}:{password}" if user and colon and password else None
