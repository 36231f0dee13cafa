"""People are told by a webhook: the verdict, its reasons and where to read on; who cannot be told stops nothing."""

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from flows.notify import notify


class Webhook(BaseHTTPRequestHandler):
    """Keeps what it is told."""

    told: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


@pytest.fixture
def webhook() -> Iterator[str]:
    Webhook.told = []
    with HTTPServer(("127.0.0.1", 0), Webhook) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"json://127.0.0.1:{server.server_port}/hook"
        server.shutdown()
        thread.join()


def test_a_webhook_hears_the_verdict(webhook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETUNE_NOTIFY", webhook)
    notify(tmp_path, "FAIL: tickets version 3", "accuracy 0.71 is below gates.floor.at_least 0.75")

    (told,) = Webhook.told
    assert told["title"] == "FAIL: tickets version 3"
    assert "gates.floor.at_least" in told["message"]


def test_who_cannot_be_told_stops_nothing_and_is_not_spelled_out(
    webhook: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RETUNE_NOTIFY", f"json://user:hidden@127.0.0.1:9/hook nonsense://hidden mailto:user:hidden@host {webhook}")
    with caplog.at_level(logging.WARNING, logger="flows"):
        notify(tmp_path, "PASS", "it passed")

    assert len(Webhook.told) == 1
    said = [record.getMessage() for record in caplog.records if record.name == "flows.notify"]
    assert [line.split()[0] for line in said] == ["json,", "nonsense,", "no"]
    assert not any("hidden" in line for line in said)


def test_nobody_is_told_where_nobody_is_named(webhook: str, tmp_path: Path) -> None:
    notify(tmp_path, "PASS", "it passed")

    assert Webhook.told == []
