"""A PostgreSQL server for the tests: in a temporary folder, on a free port of loopback, removed at the end.

Its programs are Debian's or on the PATH. They do not run as root; if root runs the tests, they run as the system user `postgres`.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.core.errors import NotFound
from components.core.ports import free_port
from infra.local.postgres import program

USER, PASSWORD = "retune", "sw:rd@f/ish%7"  # must be quoted in a URL
DEADLINE = 60.0  # seconds to start
FAST = ["fsync=off", "full_page_writes=off", "synchronous_commit=off", "shared_buffers=16MB"]  # durability is not needed


@dataclass(frozen=True)
class Cluster:
    """A running server with one superuser."""

    port: int
    process: "subprocess.Popen[bytes]"

    def url(self, database: str = "postgres", **changes: Any) -> str:
        """Return the URL of a database for SQLAlchemy, with its password; `changes` replace parts."""
        from sqlalchemy import URL

        parts = {"username": USER, "password": PASSWORD, "host": "127.0.0.1", "port": self.port, "database": database, **changes}
        return URL.create(parts.pop("drivername", "postgresql+psycopg"), **parts).render_as_string(hide_password=False)

    def new_database(self) -> str:
        """Create an empty database and return its name."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.run("postgres", f"CREATE DATABASE {name}")
        return name

    def run(self, database: str, *statements: str) -> None:
        """Run statements, each committed."""
        import psycopg

        with psycopg.connect(**self.options(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[call-overload]

    def options(self, database: str) -> dict[str, Any]:
        """Return the connection parameters for psycopg."""
        return {"host": "127.0.0.1", "port": self.port, "user": USER, "password": PASSWORD, "dbname": database}


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A server for the whole session; a test creates its own database with `new_database`. Skip the test without PostgreSQL."""
    try:
        program("initdb")
    except NotFound as error:
        pytest.skip(str(error))
    with running() as cluster:
        yield cluster


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """Create and start a cluster; stop and remove it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="retune-postgres-"))
    try:
        _make(folder)
        cluster = _start(folder)
        try:
            yield cluster
        finally:
            _stop(cluster.process)
    finally:
        shutil.rmtree(folder)


def _make(folder: Path) -> None:
    secret = folder / "password"
    secret.write_text(PASSWORD, encoding="utf-8")
    if _account():
        for path in (folder, secret):
            shutil.chown(path, "postgres", "postgres")
    options = ["-U", USER, "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]
    command = [program("initdb"), "-D", str(folder / "data"), *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **_account())
    assert done.returncode == 0, done.stderr


def _start(folder: Path) -> Cluster:
    """Start the server, with another port if a different process has taken the free one."""
    import psycopg

    deadline = time.monotonic() + DEADLINE
    while True:
        port = free_port()
        settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", *FAST]
        command = [program("postgres"), "-D", str(folder / "data"), "-p", str(port), *(part for one in settings for part in ("-c", one))]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, preexec_fn=_end_with_parent, **_account())
        cluster = Cluster(port, process)
        while process.poll() is None:
            with contextlib.suppress(psycopg.OperationalError):
                cluster.run("postgres", "SELECT 1")
                return cluster
            assert time.monotonic() < deadline, (folder / "log").read_text(encoding="utf-8")
            time.sleep(0.05)
        assert "in use" in (folder / "log").read_text(encoding="utf-8"), (folder / "log").read_text(encoding="utf-8")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGINT)  # a fast shutdown
    try:
        process.wait(300)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _account() -> dict[str, Any]:
    return {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}


def _end_with_parent() -> None:
    with contextlib.suppress(AttributeError):  # Linux only
        ctypes.CDLL(None).prctl(1, signal.SIGINT)
