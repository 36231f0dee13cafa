"""Locks that say who waits for what when they cannot be had: of a file, or of the shared database where several machines work.

Either is let go of with the process that holds it: by the kernel, or by PostgreSQL when the connection is gone.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from components.core.errors import Unavailable
from components.core.hashing import digest_value

DATABASE = "RETUNE_DATABASE"  # SQLAlchemy's address of the PostgreSQL database that workers share
_POLL = 0.1  # seconds


class LockTimeout(Unavailable):
    """Another process holds the lock; whatever else keeps it from being had is `Unavailable` alone."""


def shared_database() -> str | None:
    """Return the address of the database that workers on several machines share; None where all state is embedded."""
    return os.environ.get(DATABASE) or None


@contextmanager
def hold(path: Path, timeout: float) -> Iterator[None]:
    """Hold the file lock at `path`.

    Raises:
        Busy: another process has held it for `timeout` seconds.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        raise LockTimeout(f"{path} has been held by another process for {timeout:g} s; wait for it to end and try again") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def hold_shared(database: str, name: str, timeout: float) -> Iterator[None]:
    """Hold the lock `name` among all who use `database`: an advisory lock of PostgreSQL's session, on a connection of its own.

    Raises:
        Busy: another process has held it for `timeout` seconds.
        Unavailable: the database is out of reach.
    """
    import sqlalchemy as sa
    import sqlalchemy.exc
    from sqlalchemy.pool import NullPool

    key = int(digest_value(["retune", name])[:15], 16)  # below 2**63
    engine = sa.create_engine(database, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        connection = engine.connect()
    except sqlalchemy.exc.OperationalError as error:
        raise Unavailable(f"{engine.url} is out of reach: {str(error).splitlines()[0]}") from error
    with connection:
        end = time.monotonic() + timeout
        while not connection.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar_one():
            if time.monotonic() >= end:
                raise LockTimeout(f"another worker has held {name!r} for {timeout:g} s; wait for it to end and try again")
            time.sleep(_POLL)
        yield
