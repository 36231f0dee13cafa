import os
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from components import process
from components.errors import BadModel, Cancelled
from components.registry.ask import _path_without_components, _wait, ask

SLEEP = [sys.executable, "-c", "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"]


def descendants() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


def test_a_question_can_be_cancelled_from_another_thread(tmp_path: Path) -> None:
    before = set(descendants())
    end = threading.Thread(target=lambda: (wait_for_grandchild(before), process.end_children()))
    end.start()

    start = time.monotonic()
    with pytest.raises(Cancelled, match="asking models:/tickets/1 was cancelled"):
        _wait(SLEEP, tmp_path, os.environ, "models:/tickets/1", 60)
    end.join()

    assert time.monotonic() - start < 30
    assert set(descendants()) == before
    assert set() == process.CHILDREN


def wait_for_grandchild(before: set[psutil.Process]) -> None:
    end = time.monotonic() + 20
    while len(set(descendants()) - before) < 2 and time.monotonic() < end:
        time.sleep(0.05)


def test_a_question_that_takes_too_long_leaves_nothing_behind(tmp_path: Path) -> None:
    before = set(descendants())

    with pytest.raises(BadModel, match="models:/tickets/1 did not answer within 1 s"):
        _wait(SLEEP, tmp_path, os.environ, "models:/tickets/1", 1)

    assert set(descendants()) == before
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
        ask(f"sqlite:///{tmp_path}/mlflow.db", "models:/tickets/1", ["x"])
