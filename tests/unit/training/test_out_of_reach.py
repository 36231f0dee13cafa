"""Servers that are dead, or accept a connection and never answer: known within seconds, in one line."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from components.core.errors import RetuneError, Unavailable
from components.core.locks import hold_shared
from components.core.process import quiet_environment
from components.ledger import Ledger
from components.mlflow_store import connection, registry
from flows.orchestrator.server import reach

DEAD = "http://127.0.0.1:9"


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@contextmanager
def answering(status: int) -> Iterator[str]:
    class Answers(BaseHTTPRequestHandler):
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

    with HTTPServer(("127.0.0.1", 0), Answers) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(connection, "_PATIENCE", 1)
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")  # libpq waits no shorter
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 8


def test_a_dead_tracking_server_is_named_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Unavailable) as told:
        registry.versions(DEAD, "tickets")

    assert str(told.value) == (
        f"MLflow's server at {DEAD} does not answer: Connection refused; "
        "start it, or correct its address in RETUNE_MLFLOW_URI or RETUNE_ENVIRONMENTS"
    )
    assert "urllib3" not in caplog.text


def test_a_silent_tracking_server_is_not_waited_for(silent: str) -> None:
    with pytest.raises(Unavailable, match="does not answer: nothing came within 1 s"):
        registry.versions(f"http://{silent}", "tickets")


def test_a_tracking_server_without_its_database_is_told_as_such() -> None:
    with answering(500) as url, pytest.raises(Unavailable, match=f"{url} answers with 500"):
        connection.reach(url)


def test_a_tracking_server_that_answered_is_not_asked_again() -> None:
    with answering(200) as url:
        connection.reach(url)
    connection.reach(url)


def test_a_silent_database_is_not_waited_for(silent: str) -> None:
    url = f"postgresql+psycopg://retune:hidden@{silent}/retune"

    with pytest.raises(Unavailable, match="busy or out of reach") as told:
        Ledger(url).head("tickets")
    with pytest.raises(Unavailable, match="is out of reach"), hold_shared(url, "turn", 1):
        pass
    assert "hidden" not in str(told.value)


def test_no_process_of_ours_waits_for_postgresql_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGCONNECT_TIMEOUT")
    quiet_environment()

    assert os.environ["PGCONNECT_TIMEOUT"] == "5"


def test_a_dead_prefect_server_is_named_in_one_line() -> None:
    with pytest.raises(
        Unavailable, match=r"Prefect's server at http://127\.0\.0\.1:9/api does not answer: .*refused.*RETUNE_PREFECT_API_URL"
    ):
        reach(f"{DEAD}/api")


@pytest.mark.parametrize(
    ("status", "kind", "says"), [(401, RetuneError, "rejects the request with 401"), (404, Unavailable, "expected to end in /api")]
)
def test_a_prefect_server_that_refuses_is_told_as_such(status: int, kind: type[Exception], says: str) -> None:
    with answering(status) as url, pytest.raises(kind, match=says):
        reach(f"{url}/api")
