"""The credential of the servers that Retune starts: a line USER:PASSWORD in var/prefect/auth, readable by its owner only."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from components.core.atomic import write_text
from components.core.errors import RetuneError
from components.core.locks import lock
from components.core.output_dir import closed_to, make_private, private

FILE = Path("prefect/auth")  # below var/
USER = "retune"
_LOCK_SECONDS = 10.0  # another process needs milliseconds


def make(var: Path) -> str:
    """Return the credential of the servers of `var`, and create it if needed.

    Raises:
        LockTimeout: another process holds the lock.
        RetuneError: the file belongs to another account.
    """
    if secret := read(var):
        return secret
    path = var / FILE
    make_private(path.parent)
    with private(path.parent), lock(path.with_name("auth.lock"), _LOCK_SECONDS):
        if not (secret := read(var)):  # another process has not just created it
            secret = f"{USER}:{secrets.token_urlsafe(32)}"
            write_text(path, f"{secret}\n")
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
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    except PermissionError:
        raise RetuneError(f"{path} belongs to another account: run `retune` as the account that owns {var}") from None
    return f"{user}:{password}" if user and colon and password else None
