"""The launcher runs one step, reports faults in one message, and locks the output folder."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from components.__main__ import output_lock
from components.core.errors import Unavailable


def launch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-m", "components", *arguments]
    return subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True)


def test_unknown_step_suggests_the_closest(tmp_path: Path) -> None:
    done = launch(tmp_path, "trian", "a", "b")

    assert done.returncode == 2
    assert "error: 'trian' is not a step; did you mean 'train'?" in done.stderr


@pytest.mark.slow
def test_missing_params_file_is_reported(tmp_path: Path) -> None:
    done = launch(tmp_path, "validate", "data/raw", "data/validated")

    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "params.yaml is missing" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.exhaustive
def test_wrong_number_of_folders_is_reported(tmp_path: Path) -> None:
    done = launch(tmp_path, "validate", "data/raw")

    assert done.returncode == 2
    assert "expects the folders RAW OUT, found 1" in done.stderr


def hold(folder: str, ready: "multiprocessing.synchronize.Event") -> None:
    os.chdir(folder)
    with output_lock(Path("models/trained")):
        ready.set()
        time.sleep(60)


def test_second_writer_times_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=hold, args=(str(tmp_path), ready))
    holder.start()
    assert ready.wait(300)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("components.__main__.LOCK_SECONDS", 0.2)

    with pytest.raises(Unavailable, match="another process is writing models/trained"), output_lock(Path("models/trained")):
        pass
    holder.kill()
    holder.join()
    with output_lock(Path("models/trained")):  # the kernel released the lock with the process
        pass


def test_process_ends_with_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent("""
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-m", "components.core.process", "sleep", "60"])
        print(child.pid, flush=True)
        time.sleep(60)
        """)
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": "."})
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    deadline = time.monotonic() + 300
    while child.name() != "sleep" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert child.name() == "sleep"

    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()

    ended, _ = psutil.wait_procs([child], timeout=300)
    assert ended


STEP = """
import sys
from pathlib import Path
from components.core.section import Section

class TuneParams(Section):
    trials: int = 1

def validate(raw: Path, out: Path, *, task: str) -> None:
    out.mkdir(parents=True)
    edited = Path(EDITED)
    edited.write_text(edited.read_text() + CHANGE)
"""


@pytest.mark.parametrize(
    ("edited", "change", "expected"),
    [
        ("components/data/validate/step.py", "\n", "components/data/validate/step.py changed while validate was running"),
        ("params.yaml", "task: other\n", "params.yaml changed while validate was running"),
        ("params.yaml", "unseen: 1\n", None),
        ("components/evaluation/metric_set.py", "\n", None),
    ],
)
def test_result_is_dropped_if_code_or_settings_change(tmp_path: Path, edited: str, change: str, expected: str | None) -> None:
    root = Path(__file__).parents[3]
    shutil.copytree(root / "components", tmp_path / "components", ignore=shutil.ignore_patterns("__pycache__", "validate"))
    (tmp_path / "components/data/validate").mkdir()
    (tmp_path / "components/data/validate/step.py").write_text(STEP.replace("EDITED", repr(edited)).replace("CHANGE", repr(change)))
    (tmp_path / "params.yaml").write_text("task: one\n")
    command = [sys.executable, "-m", "components", "validate", "data/raw", "data/validated"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)

    assert done.returncode == (1 if expected else 0), done.stderr
    assert (expected or "") in done.stderr
