"""Ctrl-C in each stage and kill -9 in each effect: the next run finishes without losses and duplicates."""

import json
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from components.steps import STAGES
from tests.support.project import BIN, environment, leftovers, make_project, retune, started, status, wait_for

pytestmark = pytest.mark.slow


def end_at(folder: Path, words: str, number: signal.Signals) -> int:
    """Start a run, send it a signal when its output contains `words`, and return its exit code."""
    command = [str(BIN / "retune"), "run", "--inline"]
    output = []
    with started(command, cwd=folder, env=environment(folder, forks=True), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        assert run.stdout is not None
        for line in run.stdout:
            output.append(line)
            if words in line:
                run.send_signal(number)
                break
        output += run.stdout.readlines()
        code = run.wait(300)
    assert any(words in line for line in output), f"the output does not contain {words!r}:\n{''.join(output)}"
    wait_for(lambda: not leftovers(folder))
    if number == signal.SIGINT:
        assert "Traceback" not in "".join(output), "".join(output)
        assert "run the same command again" in output[-1]
    return code


@pytest.mark.exhaustive
def test_interrupted_run_is_resumed(tmp_path: Path, tiny_base: Path, tickets: pd.DataFrame) -> None:
    folder = make_project(tmp_path / "project", tiny_base, tickets, tuned=True)
    for stage in STAGES:
        assert end_at(folder, f"Running stage '{stage}'", signal.SIGINT) == 130, stage

    done = retune(folder, "run", "--inline")

    assert done.returncode == 0, done.stdout + done.stderr
    assert [version["version"] for version in status(folder)["versions"]] == [1]


EFFECTS = ("evaluate: ran", "recorded as run", "registered tickets as version", "gate floor", "is now the champion")


@pytest.mark.parametrize("effects", [EFFECTS[2::2], pytest.param(EFFECTS, marks=pytest.mark.exhaustive)], ids=["two", "all"])
def test_killed_run_is_resumed(tmp_path: Path, tiny_base: Path, tickets: pd.DataFrame, effects: tuple[str, ...]) -> None:
    folder = make_project(tmp_path / "project", tiny_base, tickets)
    for words in effects:
        assert end_at(folder, words, signal.SIGKILL) == -signal.SIGKILL, words

    done = retune(folder, "run", "--inline")

    assert done.returncode == 0, done.stdout + done.stderr
    state = status(folder)
    assert ([version["version"] for version in state["versions"]], state["version"]) == ([1], 1)
    verdict = json.loads((folder / "reports/verdict.json").read_text(encoding="utf-8"))
    assert f'content="{verdict["key"]} 1"' in (folder / "reports/index.html").read_text(encoding="utf-8")
