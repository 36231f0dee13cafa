"""Servers that are dead or never answer are reported within seconds, in one line."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from components.core.errors import RetuneError, Unavailable
from components.core.locks import database_lock
from components.core.process import quiet_environment
from components.ledger import Ledger
from components.mlflow_store import connection, registry
from flows.orchestrator.server import reach

DEAD = "http://127.0.0.1:9"


@pytest.fixture
def silent() -> Iterator[str]:
    """Yield the address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def answering(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:
            """Stay silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(connection, "_TIMEOUT", 1)
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")  # libpq waits no shorter
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 8


def test_dead_tracking_server_is_reported_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Unavailable) as error:
        registry.versions(DEAD, "tickets")

    assert str(error.value) == (
        f"MLflow's server at {DEAD} does not answer: Connection refused; "
        "start it, or correct its address in RETUNE_MLFLOW_URI or RETUNE_ENVIRONMENTS"
    )
    assert "urllib3" not in caplog.text


def test_silent_tracking_server_times_out(silent: str) -> None:
    with pytest.raises(Unavailable, match="does not answer: no response within 1 s"):
        registry.versions(f"http://{silent}", "tickets")


def test_tracking_server_without_database_is_reported() -> None:
    with answering(500) as url, pytest.raises(Unavailable, match=f"{url} returned status 500"):
        connection.check_server(url)


def test_tracking_server_is_checked_once() -> None:
    with answering(200) as url:
        connection.check_server(url)
    connection.check_server(url)


def test_silent_database_times_out(silent: str) -> None:
    url = f"postgresql+psycopg://retune:hidden@{silent}/retune"

    with pytest.raises(Unavailable, match="busy or unreachable") as error:
        Ledger(url).head("tickets")
    with pytest.raises(Unavailable, match="is unreachable"), database_lock(url, "turn", 1):
        pass
    assert "hidden" not in str(error.value)


def test_postgresql_connections_have_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGCONNECT_TIMEOUT")
    quiet_environment()

    assert os.environ["PGCONNECT_TIMEOUT"] == "5"


def test_dead_prefect_server_is_reported_in_one_line() -> None:
    with pytest.raises(
        Unavailable, match=r"Prefect's server at http://127\.0\.0\.1:9/api does not answer: .*refused.*RETUNE_PREFECT_API_URL"
    ):
        reach(f"{DEAD}/api")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "exception", "message"), [(401, RetuneError, "rejects the request with 401"), (404, Unavailable, "expected to end in /api")]
)
def test_prefect_server_that_refuses_is_reported(status: int, exception: type[Exception], message: str) -> None:
    with answering(status) as url, pytest.raises(exception, match=message):
        reach(f"{url}/api")
