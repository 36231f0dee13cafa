"""What Prefect adds to the story: retries for what a retry can mend, logs and the verdict on the run's page, a server that comes back."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from flows.prefect_api import know, post
from tests.project import ROOT, environment, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def var(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state of a server that all stories share, and that ends with them."""
    folder = tmp_path_factory.mktemp("engine") / "var"
    folder.mkdir()
    yield folder
    supervisor = psutil.Process(address(folder)["pid"])
    family = [supervisor, *supervisor.children(recursive=True)]
    supervisor.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive, "the server outlived its supervisor"


def address(var: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((var / "prefect/server.json").read_text(encoding="utf-8"))
    return found


def begin(var: Path, kind: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.story", str(var), kind]
    return subprocess.Popen(command, cwd=ROOT, env=environment(ROOT), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def story(var: Path, kind: str) -> dict[str, Any]:
    """Tell a story and return what happened in it."""
    return ending(begin(var, kind))


def ending(process: subprocess.Popen[str]) -> dict[str, Any]:
    said, errors = process.communicate(timeout=180)
    assert process.returncode == 0, said + errors
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def ask(told: dict[str, Any], what: str, **query: object) -> list[dict[str, Any]]:
    know(told["url"], told["credential"])
    found: list[dict[str, Any]] = post(f"{told['url']}/{what}/filter", query).json()
    return found


def of_this_run(told: dict[str, Any]) -> dict[str, object]:
    return {"flow_runs": {"id": {"any_": [told["flow_run"]]}}}


def test_a_task_is_tried_again_only_when_that_can_mend_it(var: Path) -> None:
    told = story(var, "failing")

    assert told["tried"] == ["busy", "busy", "busy", "bad", "busy once", "busy once"]
    assert told["errors"] == ["Unavailable", "BadData"]
    assert told["once"] == "done"
    runs = {run["name"].rpartition("-")[0]: run for run in ask(told, "task_runs", **of_this_run(told))}
    assert {name: (run["run_count"], run["state_type"]) for name, run in runs.items()} == {
        "busy": (3, "FAILED"),
        "bad": (1, "FAILED"),
        "busy_once": (2, "COMPLETED"),
    }


def test_logs_and_the_verdict_are_on_the_page_of_the_run(var: Path) -> None:
    told = story(var, "speaking")

    logs = {"flow_run_id": {"any_": [told["flow_run"]]}}
    wait_for(lambda: any(line["name"] == "flows.story" for line in ask(told, "logs", logs=logs)), 30)
    lines = {(line["name"], line["level"], line["message"]) for line in ask(told, "logs", logs=logs)}
    assert lines >= {("components.story", 20, "kept 7 of 9 rows"), ("flows.story", 30, "train: ran")}
    assert "elsewhere" not in {name for name, _, _ in lines}
    (artifact,) = ask(told, "artifacts", **of_this_run(told))
    assert (artifact["type"], artifact["key"], artifact["data"]) == ("markdown", "verdict-tickets-of-2026", "# PASS: tickets version 1")


def test_a_server_that_is_killed_comes_back_and_the_run_goes_on(var: Path) -> None:
    process = begin(var, "waiting")
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    before = address(var)
    (server,) = psutil.Process(before["pid"]).children()
    os.kill(server.pid, signal.SIGKILL)

    wait_for(lambda: [each.pid for each in psutil.Process(before["pid"]).children()] not in ([], [server.pid]), 20)
    wait_for(lambda: healthy(before["url"]), 90)
    (var / "go").touch()
    told = ending(process)

    assert told["once"] == "done"
    assert address(var) == before
    (run,) = ask(told, "flow_runs", **of_this_run(told))
    assert run["state_type"] == "COMPLETED"


def healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


@pytest.mark.exhaustive
def test_two_projects_that_start_at_once_have_a_server_each(tmp_path: Path) -> None:
    """Both look for the same port and find it free; who comes second takes another, and is not told the other's answers."""
    folders = [tmp_path / "one/var", tmp_path / "two/var"]
    for folder in folders:
        folder.mkdir(parents=True)
    beginning = [begin(folder, "speaking") for folder in folders]
    try:
        told = [ending(process) for process in beginning]
        assert told[0]["url"] != told[1]["url"]
        for mine, other in (told, reversed(told)):
            assert len(ask(mine, "flow_runs", **of_this_run(mine))) == 1
            assert ask(other, "flow_runs", **of_this_run(mine)) == []
    finally:
        for folder in folders:
            os.kill(address(folder)["pid"], signal.SIGTERM)
