"""What Prefect adds to a run: retries of temporary errors, logs and the verdict on the run's page, a restarted server."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from components.core.errors import RetuneError
from flows.doctor import refuse_orphans
from flows.orchestrator import orphaned_runs
from flows.orchestrator.prefect_api import post, use_credential
from tests.support.project import ROOT, environment, prefect_of, wait_for

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
    _, alive = psutil.wait_procs(family, timeout=300)
    assert not alive, "the server outlived its supervisor"


def address(var: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((var / "prefect/server.json").read_text(encoding="utf-8"))
    return found


def begin(var: Path, kind: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.support.prefect_flows", str(var), kind]
    return subprocess.Popen(command, cwd=ROOT, env=environment(ROOT), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def story(var: Path, kind: str) -> dict[str, Any]:
    """Run a flow of tests.support.prefect_flows and return its events."""
    return ending(begin(var, kind))


def ending(process: subprocess.Popen[str]) -> dict[str, Any]:
    said, errors = process.communicate(timeout=300)
    assert process.returncode == 0, said + errors
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def ask(told: dict[str, Any], what: str, **query: object) -> list[dict[str, Any]]:
    use_credential(told["url"], told["credential"])
    found: list[dict[str, Any]] = post(f"{told['url']}/{what}/filter", query).json()
    return found


def of_this_run(told: dict[str, Any]) -> dict[str, object]:
    return {"flow_runs": {"id": {"any_": [told["flow_run"]]}}}


@pytest.mark.exhaustive
def test_task_is_retried_only_for_temporary_faults(var: Path) -> None:
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
    wait_for(lambda: any(line["name"] == "flows.story" for line in ask(told, "logs", logs=logs)))
    lines = {(line["name"], line["level"], line["message"]) for line in ask(told, "logs", logs=logs)}
    assert lines >= {("components.story", 20, "kept 7 of 9 rows"), ("flows.story", 30, "train: ran")}
    assert "elsewhere" not in {name for name, _, _ in lines}
    (artifact,) = ask(told, "artifacts", **of_this_run(told))
    assert (artifact["type"], artifact["key"], artifact["data"]) == ("markdown", "verdict-tickets-of-2026", "# PASS: tickets version 1")


def test_run_continues_after_a_server_restart(var: Path) -> None:
    process = begin(var, "waiting")
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    before = address(var)
    (server,) = psutil.Process(before["pid"]).children()
    os.kill(server.pid, signal.SIGKILL)

    wait_for(lambda: [each.pid for each in psutil.Process(before["pid"]).children()] not in ([], [server.pid]))
    wait_for(lambda: healthy(before["url"]))
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


POINTS = {"before": [], "between": ["COMPLETED"], "task": ["CRASHED"], "retry": ["CRASHED"]}


def test_killed_runs_are_marked_crashed(var: Path) -> None:
    killed = {point: begin(var, point) for point in POINTS}
    for process in killed.values():
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
    url = prefect_of(var)
    wait_for(lambda: len(open_runs(url, "flow_runs")) == 4 and len(open_runs(url, "task_runs")) == 2, 30)
    assert orphaned_runs.find(url, managed=True) == []  # all at work
    for process in killed.values():
        process.kill()
        process.communicate()
    lost = {str(process.pid) for process in killed.values()}

    with pytest.raises(RetuneError, match="shows 4 run\\(s\\) as running whose process is gone"):
        refuse_orphans(url, managed=True)
    assert orphaned_runs.close(url, managed=False) == 4

    runs = [run for run in orphaned_runs.pages(url, "flow_runs", {}) if {tag.split("/")[1] for tag in run["tags"]} & lost]
    assert {run["state_type"] for run in runs} == {"CRASHED"}
    states = [[task["state_type"] for task in tasks_of(url, run)] for run in runs]
    assert sorted(states) == sorted(POINTS.values())
    assert (open_runs(url, "flow_runs"), open_runs(url, "task_runs")) == ([], [])
    refuse_orphans(url, managed=True)


def open_runs(url: str, what: str) -> list[Any]:
    kinds = orphaned_runs.OPEN if what == "flow_runs" else orphaned_runs.OPEN_TASKS
    return list(orphaned_runs.pages(url, what, {what: {"state": {"type": {"any_": kinds}}}}))


def tasks_of(url: str, run: Any) -> list[Any]:
    return list(orphaned_runs.pages(url, "task_runs", {"flow_runs": {"id": {"any_": [run["id"]]}}}))


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "CANCELLING"])
def test_only_runs_of_processes_that_are_gone_are_closed(var: Path, state: str) -> None:
    url = prefect_of(var)
    gone = f"{orphaned_runs.MARK}{socket.gethostname()}/4194305/1.0"
    cases = {
        "gone": [gone],
        "elsewhere": [f"{orphaned_runs.MARK}another-host/1/1.0"],
        "alive": [orphaned_runs.tag()],
        "again": [gone, orphaned_runs.tag()],
        "unknown": [],
    }
    flow = post(f"{url}/flows/", {"name": "made"}).json()["id"]
    made = {
        post(f"{url}/flow_runs/", {"flow_id": flow, "name": name, "tags": tags, "state": {"type": state}}).json()["id"]: name
        for name, tags in cases.items()
    }
    orphaned_runs.close(url, managed=True)

    found = {
        made[run["id"]]: run["state_type"] for run in orphaned_runs.pages(url, "flow_runs", {"flow_runs": {"id": {"any_": list(made)}}})
    }
    ended = "CANCELLED" if state == "CANCELLING" else "CRASHED"
    assert found == {name: ended if name == "gone" else state for name in cases}
    for run in made:
        post(f"{url}/flow_runs/{run}/set_state", {"state": {"type": "CANCELLED"}, "force": True})


def test_a_run_whose_worker_died_is_closed_by_its_process_number() -> None:
    run = {"id": "1", "tags": [], "infrastructure_pid": "4194305", "deployment_id": "d", "state": {"timestamp": "2026-01-01T00:00:00Z"}}
    young = run | {"infrastructure_pid": None, "state": {"timestamp": datetime.now(UTC).isoformat()}}

    assert [orphaned_runs.process_is_gone(run, managed=True), orphaned_runs.process_is_gone(run, managed=False)] == [True, False]
    others = [run | {"infrastructure_pid": None}, run | {"infrastructure_pid": None, "deployment_id": None}, young]
    assert [orphaned_runs.process_is_gone(one, managed=True) for one in others] == [True, False, False]
    living = {"infrastructure_pid": str(os.getpid()), "state": {"timestamp": datetime.now(UTC).isoformat()}}
    assert [orphaned_runs.process_is_gone(run | one, managed=True) for one in (living, {"infrastructure_pid": str(os.getpid())})] == [
        False,
        True,
    ]


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
