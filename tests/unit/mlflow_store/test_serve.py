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
    _ended,
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
    """A server that answers every request alike, or closes the connection instead."""

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
def test_every_row_is_asked_once_and_every_form_is_used(count: int) -> None:
    rows = pd.DataFrame({"id": range(count), "text": "x"})
    requests = list(_requests(rows))

    assert [number for _, part in requests for number in part["id"]] == list(range(count))
    assert {form for form, _ in requests} == set(list(FORMS)[:count])
    assert max(len(part) for _, part in requests) <= 50


def test_rows_are_taken_evenly() -> None:
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
    ("status", "body", "said"),
    [
        (500, b"out of order", "dataframe_split with 3 rows: status 500, out of order"),
        (200, b"[]", "another shape"),
        (200, b'{"predictions": []}', "another shape"),
        (200, b'{"predictions": [{"label": 1}, {"label": 1}, {"label": 1}]}', "another shape"),
        (200, b"no JSON", "another shape"),
    ],
)
def test_what_is_no_answer_is_told(status: int, body: bytes, said: str) -> None:
    with answering(status, body) as port:
        found = _probe("models:/tickets/1", port, ROWS, TEXT, time.monotonic() + 300)

    assert found.answers == ()
    assert said in found.refused[0]
    assert found.refused[-1].startswith("a good request after malformed ones")
    assert found.malformed == dict.fromkeys(malformed_requests(TEXT), status)


def test_a_connection_that_breaks_is_no_status() -> None:
    with answering(200, b"", breaks=True) as port:
        found = _probe("models:/tickets/1", port, ROWS, TEXT, time.monotonic() + 300)

    assert found.malformed == dict.fromkeys(malformed_requests(TEXT), None)
    assert "no answer" in found.refused[0]


@pytest.mark.parametrize(
    ("code", "text", "outside", "said"),
    [
        (-9, "", True, "killed"),
        (137, "", True, "killed"),
        (1, "RuntimeError\nMemoryError", True, "memory"),
        (1, "Traceback\nValueError: no tokenizer\nException: Command 'x' returned non zero\n", False, "with 1: ValueError: no tokenizer"),
        (3, "", False, "ended with 3"),
    ],
)
def test_a_server_that_ends_at_the_start_says_whose_fault_it_is(tmp_path: Path, code: int, text: str, outside: bool, said: str) -> None:
    (tmp_path / "said.txt").write_text(text)
    found = _ended(code, tmp_path / "said.txt")

    assert found.outside is outside
    assert said in str(found)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> tuple[str, Path]:
    uri, [workspace] = make_registered(tmp_path_factory.mktemp("store"), tiny_base, tickets)
    return uri, workspace


@pytest.mark.slow
def test_a_version_is_served_as_it_was_evaluated_and_refuses_what_is_no_request(
    store: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, workspace = store
    long = tmp_path / ("long" * 30)  # for a socket's name
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    ports: list[object] = []

    def asked(*given: Any) -> ServedAnswers:
        ports.extend(port for child in psutil.Process().children(recursive=True) for port in child.net_connections("inet"))
        return _probe(*given)

    monkeypatch.setattr(servability_probe, "_probe", asked)
    evaluated = Predictions.read(workspace / "reports/evaluation/predictions/candidate.parquet")
    rows = read_rows(workspace / "data/prepared/test/test.parquet")
    before = set(psutil.Process().children(recursive=True))

    served = probe_server(uri, "tickets", 1, rows)

    assert served.fault is None
    assert ports == []  # no page and no other account reaches it
    assert served.refused == ()
    assert sorted(one.id for one in served.answers) == evaluated.ids.tolist()
    found = {one.id: [one.probabilities[label] for label in evaluated.labels] for one in served.answers}
    assert np.allclose([found[name] for name in evaluated.ids], evaluated.probabilities, atol=1e-6)  # float32, another thread count
    assert set(served.malformed) == set(malformed_requests(TEXT))
    assert all(400 <= (status or 0) < 500 for status in served.malformed.values()), served.malformed
    assert served.seconds > 0
    assert set(psutil.Process().children(recursive=True)) <= before
    assert set() == process.CHILDREN
    assert json.loads(served.model_dump_json())["asked"] == 60


@pytest.mark.slow
def test_a_server_that_is_late_or_cancelled_is_ended(store: tuple[str, Path]) -> None:
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


@pytest.mark.slow
def test_a_server_that_is_killed_while_it_answers_is_not_the_versions_fault(
    store: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, _ = store

    def kills(*asked: object) -> object:
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it ends by itself meanwhile
                if any("uvicorn" in word for word in child.cmdline()):
                    child.kill()
        return _answers(*asked)

    with monkeypatch.context() as patched:
        patched.setattr(servability_probe, "_answers", kills)
        killed = probe_server(uri, "tickets", 1, ROWS)
    assert (killed.outside, killed.fault) == (True, "the scoring server was killed, for lack of memory or by hand")


@pytest.mark.slow
def test_a_server_that_has_no_time_to_answer_is_not_the_versions_fault(store: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((HOST, 0)) as silent:
        up = nullcontext((silent.getsockname()[1], 0.1))
        monkeypatch.setattr(servability_probe, "_server", lambda *_: up)
        slow = probe_server(store[0], "tickets", 1, ROWS, deadline=0.5)

    assert slow.outside
    assert slow.fault == "the scoring server did not answer all requests in time (gates.servability.max_seconds)"
