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
    """The state folder of a server that all flows share, and that is stopped at the end."""
    folder = tmp_path_factory.mktemp("engine") / "var"
    folder.mkdir()
    yield folder
    supervisor = psutil.Process(address(folder)["pid"])
    family = [supervisor, *supervisor.children(recursive=True)]
    supervisor.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=300)
    assert not alive, "the server outlived its supervisor"


def address(var: Path) -> dict[str, Any]:
    server: dict[str, Any] = json.loads((var / "prefect/server.json").read_text(encoding="utf-8"))
    return server


def start_flow(var: Path, kind: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.support.prefect_flows", str(var), kind]
    return subprocess.Popen(command, cwd=ROOT, env=environment(ROOT), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run_flow(var: Path, kind: str) -> dict[str, Any]:
    """Run a flow of tests.support.prefect_flows and return its events."""
    return events_of(start_flow(var, kind))


def events_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    events: dict[str, Any] = json.loads(output.splitlines()[-1])
    return events


def ask(events: dict[str, Any], resource: str, **query: object) -> list[dict[str, Any]]:
    use_credential(events["url"], events["credential"])
    matches: list[dict[str, Any]] = post(f"{events['url']}/{resource}/filter", query).json()
    return matches


def of_this_run(events: dict[str, Any]) -> dict[str, object]:
    return {"flow_runs": {"id": {"any_": [events["flow_run"]]}}}


@pytest.mark.exhaustive
def test_task_is_retried_only_for_temporary_faults(var: Path) -> None:
    events = run_flow(var, "failing")

    assert events["tried"] == ["busy", "busy", "busy", "bad", "busy once", "busy once"]
    assert events["errors"] == ["Unavailable", "BadData"]
    assert events["once"] == "done"
    runs = {run["name"]: run for run in ask(events, "task_runs", **of_this_run(events))}
    assert {name: (run["run_count"], run["state_type"]) for name, run in runs.items()} == {
        "busy": (3, "FAILED"),
        "bad": (1, "FAILED"),
        "busy_once": (2, "COMPLETED"),
    }


def test_prefect_shows_logs_and_verdict_of_a_run(var: Path) -> None:
    events = run_flow(var, "speaking")

    logs = {"flow_run_id": {"any_": [events["flow_run"]]}}
    wait_for(lambda: any(line["name"] == "flows.example" for line in ask(events, "logs", logs=logs)))
    lines = {(line["name"], line["level"], line["message"]) for line in ask(events, "logs", logs=logs)}
    assert lines >= {("components.example", 20, "kept 7 of 9 rows"), ("flows.example", 30, "train: ran")}
    assert "elsewhere" not in {name for name, _, _ in lines}
    (artifact,) = ask(events, "artifacts", **of_this_run(events))
    assert (artifact["type"], artifact["key"], artifact["data"]) == ("markdown", "verdict-tickets-of-2026", "# PASS: tickets version 1")


@pytest.mark.exhaustive
def test_run_continues_after_a_server_restart(var: Path) -> None:
    process = start_flow(var, "waiting")
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    before = address(var)
    (server,) = psutil.Process(before["pid"]).children()
    os.kill(server.pid, signal.SIGKILL)

    wait_for(lambda: [child.pid for child in psutil.Process(before["pid"]).children()] not in ([], [server.pid]))
    wait_for(lambda: healthy(before["url"]))
    (var / "go").touch()
    events = events_of(process)

    assert events["once"] == "done"
    assert address(var) == before
    (run,) = ask(events, "flow_runs", **of_this_run(events))
    assert run["state_type"] == "COMPLETED"


def healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


POINTS = {"before": [], "between": ["COMPLETED"], "task": ["CRASHED"], "retry": ["CRASHED"]}


def test_killed_runs_are_marked_crashed(var: Path) -> None:
    killed = {point: start_flow(var, point) for point in POINTS}
    for process in killed.values():
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
    url = prefect_of(var)
    wait_for(lambda: len(open_runs(url, "flow_runs")) == 4 and len(open_runs(url, "task_runs")) == 2, 30)
    assert orphaned_runs.find(url, managed=True) == []  # all are running
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


def open_runs(url: str, resource: str) -> list[Any]:
    kinds = orphaned_runs.OPEN if resource == "flow_runs" else orphaned_runs.OPEN_TASKS
    return list(orphaned_runs.pages(url, resource, {resource: {"state": {"type": {"any_": kinds}}}}))


def tasks_of(url: str, run: Any) -> list[Any]:
    return list(orphaned_runs.pages(url, "task_runs", {"flow_runs": {"id": {"any_": [run["id"]]}}}))


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "CANCELLING"])
def test_only_runs_of_ended_processes_are_closed(var: Path, state: str) -> None:
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

    states = {
        made[run["id"]]: run["state_type"] for run in orphaned_runs.pages(url, "flow_runs", {"flow_runs": {"id": {"any_": list(made)}}})
    }
    ended = "CANCELLED" if state == "CANCELLING" else "CRASHED"
    assert states == {name: ended if name == "gone" else state for name in cases}
    for run in made:
        post(f"{url}/flow_runs/{run}/set_state", {"state": {"type": "CANCELLED"}, "force": True})


def test_run_of_a_dead_worker_is_recognised_by_its_pid() -> None:
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
def test_concurrently_started_projects_have_separate_servers(tmp_path: Path) -> None:
    """Both look for the same port and find it free; who comes second takes another, and does not get the answers of the first."""
    folders = [tmp_path / "one/var", tmp_path / "two/var"]
    for folder in folders:
        folder.mkdir(parents=True)
    beginning = [start_flow(folder, "speaking") for folder in folders]
    try:
        events = [events_of(process) for process in beginning]
        assert events[0]["url"] != events[1]["url"]
        for mine, other in (events, reversed(events)):
            assert len(ask(mine, "flow_runs", **of_this_run(mine))) == 1
            assert ask(other, "flow_runs", **of_this_run(mine)) == []
    finally:
        for folder in folders:
            os.kill(address(folder)["pid"], signal.SIGTERM)
