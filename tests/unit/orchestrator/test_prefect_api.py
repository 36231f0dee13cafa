"""A Prefect server on SQLite says 503 while its file is busy: what was sent is sent again, an error is not."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from flows.orchestrator import prefect_api
from flows.orchestrator.prefect_api import post


class Busy(BaseHTTPRequestHandler):
    """Answers with what `answers` holds, the last of them for ever."""

    answers: list[int]
    asked: list[object]

    def do_POST(self) -> None:
        self.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(prefect_api, "PAUSES", (0.01, 0.01))
    Busy.answers, Busy.asked = [200], []
    with HTTPServer(("127.0.0.1", 0), Busy) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def test_a_busy_server_is_asked_again(server: str) -> None:
    Busy.answers = [503, 503, 201]

    assert post(server, {"run": 1}).status_code == 201
    assert Busy.asked == [{"run": 1}] * 3


@pytest.mark.parametrize(("answer", "times"), [(503, 3), (409, 1), (500, 1)])
def test_an_error_is_told_after_as_many_attempts_as_it_deserves(server: str, answer: int, times: int) -> None:
    Busy.answers = [answer]

    with pytest.raises(httpx.HTTPStatusError, match=str(answer)):
        post(server, {})
    assert len(Busy.asked) == times
