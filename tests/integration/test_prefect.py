"""The pipeline under Prefect: one managed server, and a run that leaves no process however it ends."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pandas as pd
import psutil
import pytest

from flows.orchestrator import credential
from flows.orchestrator.prefect_api import post, use_credential
from flows.orchestrator.server import launch_anywhere
from tests.support.project import BIN, edit, environment, leftovers, make_project, prefect_of, retune, started, wait_for

pytestmark = pytest.mark.slow
GUARD = Path(__file__).parent / "guard"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Iterator[Path]:
    folder = make_project(tmp_path_factory.mktemp("prefect") / "project", tiny_base, tickets)
    yield folder
    end_server(folder)


def end_server(folder: Path) -> None:
    state = folder / "var/prefect/server.json"
    if state.exists():
        os.kill(json.loads(state.read_text(encoding="utf-8"))["pid"], signal.SIGTERM)


def api(folder: Path) -> str:
    return prefect_of(folder / "var")


def last_flow_run(folder: Path) -> dict[str, object]:
    query = {"sort": "EXPECTED_START_TIME_DESC", "limit": 1}
    found: list[dict[str, object]] = post(f"{api(folder)}/flow_runs/filter", query).json()
    return found[0]


@pytest.mark.exhaustive
def test_slot_survives_a_server_restart(tmp_path: Path) -> None:
    home = tmp_path / "prefect"
    home.mkdir()
    server, port = launched(home, 0)
    use_credential(f"http://127.0.0.1:{port}/api", credential.read(tmp_path) or "")
    url = f"http://127.0.0.1:{port}/api/v2/concurrency_limits"
    post(f"{url}/", {"name": "one", "limit": 1})
    slot = {"names": ["one"], "slots": 1, "mode": "concurrency", "lease_duration": 120}
    lease = post(f"{url}/increment-with-lease", slot).json()["lease_id"]
    server.kill()
    server.wait(300)
    lock = home / "concurrency_leases/expirations.lock"  # what a kill at the wrong moment leaves, where the next server gets its number
    lock.write_text(str(os.getpid()), encoding="utf-8")
    server, _ = launched(home, port)
    renewed, limit = post(f"{url}/leases/{lease}/renew", {"lease_duration": 120}), post(f"{url}/filter", {}).json()[0]
    server.terminate()
    server.wait(300)

    assert (renewed.status_code, limit["active_slots"]) == (204, 1)


def launched(home: Path, port: int) -> tuple["subprocess.Popen[bytes]", int]:
    """Start a server as its supervisor does, and wait until it answers."""
    server, port = launch_anywhere(home, port)

    def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"http://127.0.0.1:{port}/api/health", timeout=2).is_success
        return False

    wait_for(answers)
    return server, port


@pytest.mark.exhaustive
def test_run_opens_no_outside_connection(project: Path, tmp_path: Path) -> None:
    log = tmp_path / "connections"
    path = os.pathsep.join([str(project), str(GUARD)])
    done = retune(project, "run", "--json", forks=False, PYTHONPATH=path, RETUNE_TEST_CONNECTIONS=str(log))

    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["champion"] == 1
    assert not log.exists(), log.read_text(encoding="utf-8")
    guarded = log.with_name("connections.processes").read_text(encoding="utf-8")
    for part in ("retune run", "components train", "dvc", "prefect.server", "model_worker.py"):
        assert part in guarded, f"{part} ran without the guard"
    flow_run = last_flow_run(project)
    assert flow_run["state_type"] == "COMPLETED"
    assert str(flow_run["name"]).startswith("tickets 20")
    assert {"model tickets", "verdict PASS"} <= set(flow_run["tags"])  # type: ignore[call-overload]
    tasks = post(f"{api(project)}/task_runs/filter", {"flow_runs": {"id": {"any_": [flow_run["id"]]}}}).json()
    assert {"validate", "train", "judge"} <= {task["name"] for task in tasks}
    assert "Finished in state" not in done.stderr
    artifacts = post(f"{api(project)}/artifacts/filter", {}).json()
    assert any("PASS" in str(artifact["data"]) for artifact in artifacts)


@contextlib.contextmanager
def begun(folder: Path, stage: str, forks: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Start a run that is busy in `stage` until it is ended, and wait until it is; the next one resumes from its checkpoint."""
    edit(folder, {"train": {"epochs": 10_000, "patience": 0}})
    before = time.time()
    (folder / "var").mkdir(exist_ok=True)
    history = folder / "models/trained/history.jsonl"
    with (
        (folder / "var/run.log").open("w", encoding="utf-8") as out,
        started([str(BIN / "retune"), "run"], cwd=folder, env=environment(folder, forks), stdout=out, stderr=out) as run,
    ):
        wait_for(lambda: history.exists() and history.stat().st_mtime > before and history.stat().st_size > 0)
        assert stage_processes(folder, stage)
        yield run


def stage_processes(folder: Path, stage: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            if process.info["cmdline"] and f"components {stage}" in " ".join(process.info["cmdline"]) and process.cwd() == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def interrupt(folder: Path, run: subprocess.Popen[str]) -> None:
    run.send_signal(signal.SIGINT)


def terminate(folder: Path, run: subprocess.Popen[str]) -> None:
    run.send_signal(signal.SIGTERM)


def kill(folder: Path, run: subprocess.Popen[str]) -> None:
    run.send_signal(signal.SIGKILL)


def cancel_in_prefect(folder: Path, run: subprocess.Popen[str]) -> None:
    state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    post(f"{api(folder)}/flow_runs/{last_flow_run(folder)['id']}/set_state", state)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "end", [kill, cancel_in_prefect, *(pytest.param(end, marks=pytest.mark.exhaustive) for end in (interrupt, terminate))]
)
def test_ended_run_leaves_no_process(project: Path, end: Callable[[Path, subprocess.Popen[str]], None]) -> None:
    with begun(project, "train") as run:
        end(project, run)

        assert run.wait(300) != 0
    wait_for(lambda: not leftovers(project))
    if end is cancel_in_prefect:
        assert last_flow_run(project)["state_type"] == "CANCELLED"


@pytest.mark.exhaustive
def test_second_run_in_a_workspace_is_refused(project: Path) -> None:
    with begun(project, "train", forks=True) as run:
        second = retune(project, "run", "--inline")
        run.send_signal(signal.SIGINT)
        run.wait(300)

    assert second.returncode == 75
    assert "another run uses" in second.stderr


@pytest.mark.exhaustive
def test_idle_server_stops(project: Path) -> None:
    assert httpx.get(f"{api(project)}/health").status_code == 200
    server = psutil.Process(json.loads((project / "var/prefect/server.json").read_text(encoding="utf-8"))["pid"])

    gone, _ = psutil.wait_procs([server], timeout=300)  # RETUNE_SERVER_LINGER is 20 s here

    assert gone
    assert not (project / "var/prefect/server.json").exists()
