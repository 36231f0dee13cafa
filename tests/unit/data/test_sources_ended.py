"""A signal ends a snapshot at once while a source makes it wait, and nothing is left: not here, and not in the database."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import psycopg
import pytest

from tests.support.postgres import Cluster
from tests.support.s3 import CREDENTIALS

GIVEN_UP = 50.0  # seconds: less than any time-out of the network, and enough for a busy machine

# As the command line does it.
TAKE = """
import sys
from pathlib import Path
from components.core.errors import Cancelled
from components.data.snapshot import SnapshotParams, take_snapshot
from flows.cli import install_signal_handlers
install_signal_handlers()
try:
    take_snapshot(Path(sys.argv[1]), Path(sys.argv[1], "raw"), snapshot=SnapshotParams.model_validate_json(sys.argv[2]))
except (Cancelled, KeyboardInterrupt) as error:
    sys.exit(f"{type(error).__name__}")
"""


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that takes connections and never says a word."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(300)
        yield server


def ended(root: Path, settings: str, environment: dict[str, str], waits: Callable[[], object], number: int) -> tuple[str, float]:
    """Take a snapshot, send it a signal once it `waits`, and return its last words and the seconds until they came."""
    known = {**os.environ, "PYTHONPATH": ":".join(sys.path), **environment}
    child = subprocess.Popen([sys.executable, "-c", TAKE, str(root), settings], env=known, stderr=subprocess.PIPE, text=True)
    try:
        waits()
        assert list(root.glob(".raw*"))
        started = time.monotonic()
        child.send_signal(number)
        said = child.communicate(timeout=300)[1]
        return said.strip().splitlines()[-1], time.monotonic() - started
    finally:
        child.kill()
        child.wait()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "says"), [(signal.SIGTERM, "Cancelled"), (signal.SIGINT, "KeyboardInterrupt")])
def test_a_query_that_is_given_up_ends_in_the_database_too(tmp_path: Path, postgres: Cluster, number: int, says: str) -> None:
    with psycopg.connect(**postgres.place("postgres"), autocommit=True) as other:

        def sleeping() -> bool:
            return other.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").fetchone() is not None

        settings = '{"source": "sql://slow", "query": "SELECT pg_sleep(600)"}'
        said, seconds = ended(tmp_path, settings, {"RETUNE_SQL_SLOW": postgres.url()}, lambda: until(sleeping), number)

        assert said == says
        assert seconds < GIVEN_UP
        until(lambda: not sleeping())
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("source", ["s3://bucket/tickets", "hub://acme/tickets@main"])
def test_a_store_that_does_not_answer_is_given_up_at_once(tmp_path: Path, silent: socket.socket, source: str) -> None:
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    environment = {"AWS_ENDPOINT_URL_S3": address, **CREDENTIALS, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}

    with ExitStack() as connections:
        waits = partial(accept, silent, connections)
        said, seconds = ended(tmp_path, f'{{"source": "{source}"}}', environment, waits, signal.SIGTERM)

    assert said == "Cancelled"
    assert seconds < GIVEN_UP
    assert not list(tmp_path.iterdir())


def accept(server: socket.socket, connections: ExitStack) -> None:
    connections.enter_context(server.accept()[0])


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)
