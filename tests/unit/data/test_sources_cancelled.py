"""A signal stops a snapshot that waits for a source at once; no files and no running query remain."""

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

STOP_LIMIT = 50.0  # seconds: less than any network timeout, and enough on a busy machine

# Same signal handling as the command line.
TAKE = """
import signal, sys
from pathlib import Path
from components.data.snapshot import SnapshotParams, take_snapshot
from components.core.exits import cancel_on
cancel_on(signal.SIGTERM, signal.SIGHUP)
try:
    take_snapshot(Path(sys.argv[1]), Path(sys.argv[1], "raw"), snapshot=SnapshotParams.model_validate_json(sys.argv[2]))
except KeyboardInterrupt as error:
    sys.exit(f"{type(error).__name__}")
"""


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that accepts connections and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(300)
        yield server


def stop(root: Path, settings: str, environment: dict[str, str], wait: Callable[[], object], number: int) -> tuple[str, float]:
    """Take a snapshot, send it a signal after `wait`, and return its last line and the seconds until it exited."""
    variables = {**os.environ, "PYTHONPATH": ":".join(sys.path), **environment}
    child = subprocess.Popen([sys.executable, "-c", TAKE, str(root), settings], env=variables, stderr=subprocess.PIPE, text=True)
    try:
        wait()
        assert list(root.glob(".raw*"))
        started = time.monotonic()
        child.send_signal(number)
        output = child.communicate(timeout=300)[1]
        return output.strip().splitlines()[-1], time.monotonic() - started
    finally:
        child.kill()
        child.wait()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, "Cancelled"), (signal.SIGINT, "KeyboardInterrupt")])
def test_signal_cancels_the_query_in_the_database(tmp_path: Path, postgres: Cluster, number: int, error: str) -> None:
    with psycopg.connect(**postgres.options("postgres"), autocommit=True) as connection:

        def sleeping() -> bool:
            return connection.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").fetchone() is not None

        settings = '{"source": "sql://slow", "query": "SELECT pg_sleep(600)"}'
        output, seconds = stop(tmp_path, settings, {"RETUNE_SQL_SLOW": postgres.url()}, lambda: until(sleeping), number)

        assert output == error
        assert seconds < STOP_LIMIT
        until(lambda: not sleeping())
    assert not list(tmp_path.iterdir())


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("source", ["s3://bucket/tickets", "hub://acme/tickets@main"])
def test_signal_stops_waiting_for_a_silent_store(tmp_path: Path, silent: socket.socket, source: str) -> None:
    address = f"http://127.0.0.1:{silent.getsockname()[1]}"
    environment = {"AWS_ENDPOINT_URL_S3": address, **CREDENTIALS, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"}

    with ExitStack() as connections:
        wait = partial(accept, silent, connections)
        output, seconds = stop(tmp_path, f'{{"source": "{source}"}}', environment, wait, signal.SIGTERM)

    assert output == "Cancelled"
    assert seconds < STOP_LIMIT
    assert not list(tmp_path.iterdir())


def accept(server: socket.socket, connections: ExitStack) -> None:
    connections.enter_context(server.accept()[0])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
