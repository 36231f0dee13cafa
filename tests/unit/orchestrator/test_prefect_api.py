"""Requests are repeated while a Prefect server on SQLite is busy (503), but not after errors."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from flows.orchestrator import prefect_api
from flows.orchestrator.prefect_api import post


class Busy(BaseHTTPRequestHandler):
    """Answer with the statuses in `statuses`, repeating the last one."""

    statuses: list[int]
    bodies: list[object]

    def do_POST(self) -> None:
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0])
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(prefect_api, "PAUSES", (0.01, 0.01))
    Busy.statuses, Busy.bodies = [200], []
    with HTTPServer(("127.0.0.1", 0), Busy) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def test_request_to_busy_server_is_repeated(server: str) -> None:
    Busy.statuses = [503, 503, 201]

    assert post(server, {"run": 1}).status_code == 201
    assert Busy.bodies == [{"run": 1}] * 3


@pytest.mark.parametrize(("status", "times"), [(503, 3), (409, 1), (500, 1)])
def test_error_is_raised_after_expected_attempts(server: str, status: int, times: int) -> None:
    Busy.statuses = [status]

    with pytest.raises(httpx.HTTPStatusError, match=str(status)):
        post(server, {})
    assert len(Busy.bodies) == times
