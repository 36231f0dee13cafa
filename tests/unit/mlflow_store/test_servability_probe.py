import json
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from components.artifacts.predictions import Predictions
from components.artifacts.rows import read_rows
from components.artifacts.served_answers import ServedAnswers
from components.core import process
from components.core.errors import Cancelled, NotFound
from components.mlflow_store.registry import servability_probe
from components.mlflow_store.registry.servability_probe import (
    FORMS,
    HOST,
    TEXT,
    _answers,
    _failure,
    _probe,
    _requests,
    malformed_requests,
    probe_server,
    sample_evenly,
)
from tests.support.registered import make_registered

ROWS = pd.DataFrame({"id": [f"r{i}" for i in range(7)], "text": [f"text {i}" for i in range(7)]})


@contextmanager
def answering(status: int, body: bytes, breaks: bool = False) -> Iterator[int]:
    """Run a server that gives every request the same answer, or closes the connection."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if not breaks:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 50, 151, 400])
def test_every_row_is_sent_once_and_every_format_used(count: int) -> None:
    rows = pd.DataFrame({"id": range(count), "text": "x"})
    requests = list(_requests(rows))

    assert [number for _, part in requests for number in part["id"]] == list(range(count))
    assert {form for form, _ in requests} == set(list(FORMS)[:count])
    assert max(len(part) for _, part in requests) <= 50


def test_rows_are_sampled_evenly() -> None:
    rows = pd.DataFrame({"id": range(10)})

    assert sample_evenly(rows, 3)["id"].tolist() == [0, 3, 6]
    assert (
        sample_evenly(rows, 0)["id"].tolist()
        == sample_evenly(rows, 10)["id"].tolist()
        == sample_evenly(rows, 99)["id"].tolist()
        == list(range(10))
    )
    assert sample_evenly(rows.iloc[:0], 5)["id"].tolist() == []


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (500, b"out of order", "dataframe_split with 3 rows: status 500, out of order"),
        (200, b"[]", "status 200, but not one label"),
        (200, b'{"predictions": []}', "status 200, but not one label"),
        (200, b'{"predictions": [{"label": 1}, {"label": 1}, {"label": 1}]}', "status 200, but not one label"),
        (200, b"no JSON", "status 200, but not one label"),
    ],
)
def test_invalid_answers_are_reported(status: int, body: bytes, message: str) -> None:
    with answering(status, body) as port:
        result = _probe("models:/tickets/1", port, ROWS, TEXT, time.monotonic() + 300)

    assert result.answers == ()
    assert message in result.refused[0]
    assert result.refused[-1].startswith("a valid request after malformed ones")
    assert result.malformed == dict.fromkeys(malformed_requests(TEXT), status)


def test_broken_connection_has_no_status() -> None:
    with answering(200, b"", breaks=True) as port:
        result = _probe("models:/tickets/1", port, ROWS, TEXT, time.monotonic() + 300)

    assert result.malformed == dict.fromkeys(malformed_requests(TEXT), None)
    assert "no answer" in result.refused[0]


@pytest.mark.parametrize(
    ("code", "text", "outside", "message"),
    [
        (-9, "", True, "killed"),
        (137, "", True, "killed"),
        (1, "RuntimeError\nMemoryError", True, "memory"),
        (1, "Traceback\nValueError: no tokenizer\nException: Command 'x' returned non zero\n", False, "with 1: ValueError: no tokenizer"),
        (3, "", False, "ended with 3"),
    ],
)
def test_cause_of_a_server_exit_is_classified(tmp_path: Path, code: int, text: str, outside: bool, message: str) -> None:
    (tmp_path / "server.log").write_text(text)
    failure = _failure(code, tmp_path / "server.log")

    assert failure.outside is outside
    assert message in str(failure)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> tuple[str, Path]:
    uri, [workspace] = make_registered(tmp_path_factory.mktemp("store"), tiny_base, tickets)
    return uri, workspace


@pytest.mark.slow
def test_served_version_answers_as_evaluated(store: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, workspace = store
    long = tmp_path / ("long" * 30)  # too long for a socket path
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    ports: list[object] = []
    before = set(psutil.Process().children(recursive=True))

    def probe(*arguments: Any) -> ServedAnswers:
        started = set(psutil.Process().children(recursive=True)) - before
        ports.extend(port for child in started for port in child.net_connections("inet"))
        return _probe(*arguments)

    monkeypatch.setattr(servability_probe, "_probe", probe)
    evaluated = Predictions.read(workspace / "reports/evaluation/predictions/candidate.parquet")
    rows = read_rows(workspace / "data/prepared/test/test.parquet")

    served = probe_server(uri, "tickets", 1, rows)

    assert served.fault is None
    assert ports == []  # no web page and no other account can reach it
    assert served.refused == ()
    assert sorted(answer.id for answer in served.answers) == evaluated.ids.tolist()
    probabilities = {answer.id: [answer.probabilities[label] for label in evaluated.labels] for answer in served.answers}
    assert np.allclose([probabilities[name] for name in evaluated.ids], evaluated.probabilities, atol=1e-6)  # float32, another thread count
    assert set(served.malformed) == set(malformed_requests(TEXT))
    assert all(400 <= (status or 0) < 500 for status in served.malformed.values()), served.malformed
    assert served.seconds > 0
    assert set(psutil.Process().children(recursive=True)) <= before
    assert set() == process.CHILDREN
    assert json.loads(served.model_dump_json())["asked"] == 60


@pytest.mark.slow
def test_a_server_that_is_late_or_cancelled_is_failure(store: tuple[str, Path]) -> None:
    uri, _ = store
    before = set(psutil.Process().children(recursive=True))

    late = probe_server(uri, "tickets", 1, ROWS, deadline=0.5)
    timer = threading.Timer(1.0, process.end_children)
    timer.start()
    with pytest.raises(Cancelled, match="serving models:/tickets/1 was cancelled"):
        probe_server(uri, "tickets", 1, ROWS)
    timer.join()

    assert late.fault is not None
    assert "not ready in time" in late.fault
    assert late.outside
    assert set(psutil.Process().children(recursive=True)) <= before
    with pytest.raises(NotFound, match="tickets has no version 9"):
        probe_server(uri, "tickets", 9, ROWS)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_killed_server_is_not_the_versions_fault(store: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    uri, _ = store

    def kill_first(*arguments: object) -> object:
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it may exit meanwhile
                if any("uvicorn" in word for word in child.cmdline()):
                    child.kill()
        return _answers(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(servability_probe, "_answers", kill_first)
        killed = probe_server(uri, "tickets", 1, ROWS)
    assert (killed.outside, killed.fault) == (True, "the scoring server was killed: out of memory, or manually")


@pytest.mark.slow
def test_unanswered_requests_are_not_the_versions_fault(store: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((HOST, 0)) as silent:
        up = nullcontext((silent.getsockname()[1], 0.1))
        monkeypatch.setattr(servability_probe, "_server", lambda *_: up)
        slow = probe_server(store[0], "tickets", 1, ROWS, deadline=0.5)

    assert slow.outside
    assert slow.fault == "the scoring server did not answer all requests in time (gates.servability.max_seconds)"
