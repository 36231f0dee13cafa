"""Locks on a file, or in the database that several machines share; the error names the lock.

Both end with the process that holds them: the kernel releases a file lock, PostgreSQL releases the lock of a closed connection.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.core.errors import Unavailable, first_line
from components.core.hashing import digest_value

DATABASE = "RETUNE_DATABASE"  # SQLAlchemy URL of the PostgreSQL database that workers share
_POLL = 0.1  # seconds


class LockTimeout(Unavailable):
    """Another process holds the lock; every other failure to get it is a plain `Unavailable`."""


def shared_database() -> str | None:
    """Return the URL of the database that workers on several machines share; None if all state is local."""
    return os.environ.get(DATABASE) or None


@contextmanager
def lock(path: Path, wait: float = 0.0, shared: bool = False, busy: str = "") -> Iterator[None]:
    """Hold a lock on the file `path`, created with its folder if missing; a `shared` lock only excludes exclusive ones.

    `wait` is in seconds (`math.inf` for no limit), `busy` the message if the lock is still held after that.

    Raises:
        LockTimeout: another process holds the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _open(path)
    end = time.monotonic() + wait
    try:
        while True:
            try:
                fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    message = f"{path} has been held by another process for {wait:g} s; wait for it to end and try again"
                    raise LockTimeout(busy or message) from None
            except OSError as error:
                raise Unavailable(f"{path} cannot be locked: {error.strerror}; move the folder to a file system with locks") from error
            time.sleep(_POLL)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough: a forked child may share the descriptor
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    """Open a lock file, which may be in a shared temporary folder: a link is not followed."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except PermissionError:  # Linux refuses O_CREAT for another account's file in a folder such as /tmp
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)


@contextmanager
def database_lock(database: str, name: str, wait: float) -> Iterator[None]:
    """Hold the lock `name` among all users of `database`: a PostgreSQL advisory lock on a separate connection.

    Raises:
        LockTimeout: another process has held it for `wait` seconds.
        Unavailable: the database is unreachable.
    """
    import sqlalchemy as sa
    import sqlalchemy.exc
    from sqlalchemy.pool import NullPool

    key = int(digest_value(["retune", name])[:15], 16)  # below 2**63
    engine = sa.create_engine(database, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        connection = engine.connect()
    except sqlalchemy.exc.OperationalError as error:
        raise Unavailable(f"{engine.url} is unreachable: {first_line(error)}") from error
    with connection:
        end = time.monotonic() + wait
        while not connection.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar_one():
            if time.monotonic() >= end:
                raise LockTimeout(f"another worker has held {name!r} for {wait:g} s; wait for it to end and try again")
            time.sleep(_POLL)
        yield
