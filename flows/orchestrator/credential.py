"""The credential of the servers that Retune starts: a line USER:PASSWORD in var/prefect/auth, readable by its owner only."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from components.core.errors import RetuneError
from components.core.output_dir import closed_to, make_private, private

FILE = Path("prefect/auth")  # below var/
USER = "retune"


def make(var: Path) -> str:
    """Return the credential of the servers of `var`; create it if it does not exist.

    Raises:
        RetuneError: the file belongs to another account.
    """
    if secret := read(var):
        return secret
    path = var / FILE
    make_private(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    with private(path.parent), partial.open("x", encoding="ascii") as file:
        file.write(f"{USER}:{secrets.token_urlsafe(32)}\n")
    try:
        os.link(partial, path)  # the first of several processes wins
    except FileExistsError:
        if read(var) is None:  # the file is empty or damaged
            partial.replace(path)
    except OSError:  # the file system has no hard links
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    secret = read(var)
    if secret is None:
        raise RetuneError(f"{path}: expected a line USER:PASSWORD; delete the file, and the next start recreates it")
    return secret


def read(var: Path) -> str | None:
    """Return the credential; None if there is none. Removes read permission of others, except for a group that shares `var`.

    Raises:
        RetuneError: the file belongs to another account.
    """
    path = var / FILE
    try:
        status = path.stat()
        if status.st_mode & closed_to(path.parent):
            if os.geteuid() not in (0, status.st_uid):
                raise PermissionError
            with suppress(OSError):  # the file system has no modes
                path.chmod(0o666 & ~closed_to(path.parent))
        user, colon, password = path.read_text(encoding="ascii").strip().partition(":")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        return None
    except PermissionError:
        raise RetuneError(f"{path} belongs to another account: run `retune` as the account that owns {var}") from None
    return f"{user}:{password}" if user and colon and password else None
