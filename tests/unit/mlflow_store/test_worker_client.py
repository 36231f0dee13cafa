import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from components.artifacts.predictions import Predictions
from components.artifacts.rows import read_rows
from components.core import process
from components.core.errors import BadModel, Cancelled, Unavailable
from components.mlflow_store.registry.worker_client import Session, Worker, _path_without_components, answer_rows, predictions_of
from tests.support.registered import make_registered

LOADED = "import json, os, subprocess, sys, time; print(json.dumps({'result': 'loaded'}), flush=True); "
SLEEP = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
ECHO = LOADED + "[print(json.dumps({'result': json.loads(line)}), flush=True) for line in sys.stdin]"


def worker(folder: Path, code: str) -> Worker:
    return Worker([sys.executable, "-c", code], folder, os.environ, "models:/tickets/1")


def descendants() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


def test_worker_answers_requests_until_it_is_ended(tmp_path: Path) -> None:
    before = set(descendants())
    echo = worker(tmp_path, ECHO)

    answers = [echo.call({"number": number}, 20) for number in range(3)]
    echo.end()

    assert answers == [{"number": 0}, {"number": 1}, {"number": 2}]
    assert set(descendants()) == before
    with pytest.raises(BadModel, match="its process has ended"):
        echo.call({}, 1)


def test_request_is_cancelled_from_another_thread(tmp_path: Path) -> None:
    before = set(descendants())
    sleeping = worker(tmp_path, SLEEP)
    end = threading.Thread(target=lambda: (wait_for_grandchild(before), process.end_children()))
    end.start()

    start = time.monotonic()
    with pytest.raises(Cancelled, match="request to models:/tickets/1 was cancelled"):
        sleeping.call({}, 60)
    end.join()

    assert time.monotonic() - start < 30
    assert set(descendants()) == before
    assert set() == process.CHILDREN


def wait_for_grandchild(before: set[psutil.Process]) -> None:
    end = time.monotonic() + 300
    while len(set(descendants()) - before) < 2 and time.monotonic() < end:
        time.sleep(0.05)


def test_cancelling_between_requests_fails_the_next(tmp_path: Path) -> None:
    echo = worker(tmp_path, ECHO)
    echo.call({}, 20)
    process.end_children()

    with pytest.raises(Cancelled, match="run again"):
        echo.call({}, 20)


def test_timeout_leaves_no_process_behind(tmp_path: Path) -> None:
    before = set(descendants())

    with pytest.raises(BadModel, match="models:/tickets/1 did not answer within 1 s"):
        worker(tmp_path, SLEEP).call({}, 1)

    assert set(descendants()) == before
    assert set() == process.CHILDREN


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("raise SystemExit('no such model')", BadModel, "models:/tickets/1 cannot be queried: no such model"),
        (LOADED + "sys.stdin.readline(); sys.exit(3)", BadModel, "its process ended with 3"),
        (LOADED + "sys.stdin.readline(); os.kill(os.getpid(), 9)", Unavailable, "killed while it answered"),
        (LOADED + "sys.stdin.readline(); print(json.dumps({'error': 'KeyError: 3\\nmore'}))", BadModel, "cannot be queried: KeyError: 3$"),
    ],
    ids=["at the start", "without a message", "killed", "an error"],
)
def test_worker_exit_is_reported_in_one_line(tmp_path: Path, code: str, error: type[Exception], message: str) -> None:
    ended = worker(tmp_path, code)
    with pytest.raises(error, match=message):
        ended.call({}, 20)
    ended.end()
    assert set() == process.CHILDREN


def test_folders_with_components_are_removed_from_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project/components").mkdir(parents=True)
    (tmp_path / "guard").mkdir()
    monkeypatch.chdir(tmp_path)

    assert _path_without_components(os.pathsep.join(["", "project", "guard"])) == str(tmp_path / "guard")
    assert _path_without_components("") == ""


@pytest.mark.slow
def test_worker_inherits_sitecustomize(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('guarded')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with pytest.raises(BadModel, match="guarded"):
        answer_rows(f"sqlite:///{tmp_path}/mlflow.db", "models:/tickets/1", ["x"])


@pytest.mark.exhaustive
@pytest.mark.slow
def test_session_loads_once_and_answers_many_requests(tmp_path: Path, tiny_base: Path, tickets: pd.DataFrame) -> None:
    uri, [workspace] = make_registered(tmp_path, tiny_base, tickets)
    evaluated = Predictions.read(workspace / "reports/evaluation/predictions/candidate.parquet")
    rows = read_rows(workspace / "data/prepared/test/test.parquet").sample(frac=1, random_state=1)

    with Session(uri, "models:/tickets/1", 120) as session:
        predictions = predictions_of(session.answer(rows), rows)
        times = session.times(["a text", "another one"], batch_size=3, requests=4)
        peak = session.peak_memory()
        empty = session.answer([])
        with pytest.raises(BadModel, match="cannot be queried"):
            session.times([], batch_size=1, requests=1)
        again = session.answer(["a text"])

    assert set() == process.CHILDREN
    assert np.array_equal(predictions.ids, evaluated.ids)
    assert np.array_equal(predictions.expected, evaluated.expected)
    assert predictions.labels == evaluated.labels
    assert np.allclose(predictions.probabilities, evaluated.probabilities, atol=1e-6)  # float32, another thread count
    assert len(times) == 4
    assert 0 < min(times) <= max(times) < 60
    assert 100 < peak < 4_000
    assert empty.predicted == []
    assert "mlartifacts" in str(again.code)
