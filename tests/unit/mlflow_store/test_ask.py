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

LOADED = "import json, os, subprocess, sys, time; print(json.dumps({'is': 'loaded'}), flush=True); "
SLEEP = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
ECHO = LOADED + "[print(json.dumps({'is': json.loads(line)}), flush=True) for line in sys.stdin]"


def worker(folder: Path, code: str) -> Worker:
    return Worker([sys.executable, "-c", code], folder, os.environ, "models:/tickets/1")


def descendants() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


def test_a_worker_answers_any_number_of_questions_until_it_is_ended(tmp_path: Path) -> None:
    before = set(descendants())
    echo = worker(tmp_path, ECHO)

    answers = [echo.call({"number": number}, 20) for number in range(3)]
    echo.end()

    assert answers == [{"number": 0}, {"number": 1}, {"number": 2}]
    assert set(descendants()) == before
    with pytest.raises(BadModel, match="its process has ended"):
        echo.call({}, 1)


def test_a_question_can_be_cancelled_from_another_thread(tmp_path: Path) -> None:
    before = set(descendants())
    sleeping = worker(tmp_path, SLEEP)
    end = threading.Thread(target=lambda: (wait_for_grandchild(before), process.end_children()))
    end.start()

    start = time.monotonic()
    with pytest.raises(Cancelled, match="asking models:/tickets/1 was cancelled"):
        sleeping.call({}, 60)
    end.join()

    assert time.monotonic() - start < 30
    assert set(descendants()) == before
    assert set() == process.CHILDREN


def wait_for_grandchild(before: set[psutil.Process]) -> None:
    end = time.monotonic() + 300
    while len(set(descendants()) - before) < 2 and time.monotonic() < end:
        time.sleep(0.05)


def test_a_cancel_between_two_questions_is_told_at_the_next(tmp_path: Path) -> None:
    echo = worker(tmp_path, ECHO)
    echo.call({}, 20)
    process.end_children()

    with pytest.raises(Cancelled, match="run again"):
        echo.call({}, 20)


def test_a_question_that_takes_too_long_leaves_nothing_behind(tmp_path: Path) -> None:
    before = set(descendants())

    with pytest.raises(BadModel, match="models:/tickets/1 did not answer within 1 s"):
        worker(tmp_path, SLEEP).call({}, 1)

    assert set(descendants()) == before
    assert set() == process.CHILDREN


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        ("raise SystemExit('no such model')", BadModel, "models:/tickets/1 cannot be asked: no such model"),
        (LOADED + "sys.stdin.readline(); sys.exit(3)", BadModel, "its process ended with 3"),
        (LOADED + "sys.stdin.readline(); os.kill(os.getpid(), 9)", Unavailable, "killed while it answered"),
        (LOADED + "sys.stdin.readline(); print(json.dumps({'fault': 'KeyError: 3\\nmore'}))", BadModel, "cannot be asked: KeyError: 3$"),
    ],
    ids=["at the start", "without a word", "killed", "a fault"],
)
def test_what_ends_a_worker_is_told_in_one_line(tmp_path: Path, code: str, error: type[Exception], said: str) -> None:
    ended = worker(tmp_path, code)
    with pytest.raises(error, match=said):
        ended.call({}, 20)
    ended.end()
    assert set() == process.CHILDREN


def test_only_what_has_no_components_stays_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project/components").mkdir(parents=True)
    (tmp_path / "guard").mkdir()
    monkeypatch.chdir(tmp_path)

    assert _path_without_components(os.pathsep.join(["", "project", "guard"])) == str(tmp_path / "guard")
    assert _path_without_components("") == ""


@pytest.mark.slow
def test_the_process_that_answers_is_guarded_as_this_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('guarded')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with pytest.raises(BadModel, match="guarded"):
        answer_rows(f"sqlite:///{tmp_path}/mlflow.db", "models:/tickets/1", ["x"])


@pytest.mark.slow
def test_a_version_is_loaded_once_and_asked_again_and_again(tmp_path: Path, tiny_base: Path, tickets: pd.DataFrame) -> None:
    uri, [workspace] = make_registered(tmp_path, tiny_base, tickets)
    evaluated = Predictions.read(workspace / "reports/evaluation/predictions/candidate.parquet")
    rows = read_rows(workspace / "data/prepared/test/test.parquet").sample(frac=1, random_state=1)

    with Session(uri, "models:/tickets/1", 120) as session:
        found = predictions_of(session.answer(rows), rows)
        times = session.times(["a text", "another one"], batch_size=3, requests=4)
        peak = session.peak_memory()
        none = session.answer([])
        with pytest.raises(BadModel, match="cannot be asked"):
            session.times([], batch_size=1, requests=1)
        again = session.answer(["a text"])

    assert set() == process.CHILDREN
    assert np.array_equal(found.ids, evaluated.ids)
    assert np.array_equal(found.expected, evaluated.expected)
    assert found.labels == evaluated.labels
    assert np.allclose(found.probabilities, evaluated.probabilities, atol=1e-6)  # float32, another thread count
    assert len(times) == 4
    assert 0 < min(times) <= max(times) < 60
    assert 100 < peak < 4_000
    assert none.predicted == []
    assert "mlartifacts" in str(again.code)
