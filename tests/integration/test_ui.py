"""`make ui`: both pages on loopback, the form by which a person decides, events for whatever wants to react, and nothing left after Ctrl-C.

The tests share one `make ui`, in this order; the last one ends it.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import psutil
import pytest

from components.ledger import Ledger
from components.registry import CHAMPION, Environment
from flows.prefect_api import post
from tests.finished import make_finished
from tests.integration.test_promotion import aliases, furnish, judge, wait
from tests.project import ROOT, environment, leftovers, make_project, retune, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Path:
    """A project with two versions in its registry."""
    folder = make_project(tmp_path_factory.mktemp("approvals") / "project", tiny_base, tickets)
    furnish(folder / "var", [make_finished(tmp_path_factory.mktemp("candidate"), tiny_base, tickets, seed=seed) for seed in range(2)])
    return folder


@pytest.fixture(scope="module")
def place(project: Path) -> Environment:
    return Environment("local", f"sqlite:///{project}/var/mlflow.db", f"sqlite:///{project}/var/ledger.db")


@pytest.fixture(scope="module")
def ui(project: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`make ui`, once both servers answer."""
    said = project / "var/ui.log"
    with running([sys.executable, "-m", "infra.ui"], project, said, end=signal.SIGINT) as ui:
        wait_for(lambda: "Ctrl-C ends both" in said.read_text(encoding="utf-8") or ui.poll() is not None)
        assert ui.poll() is None, said.read_text(encoding="utf-8")
        yield ui
    state = project / "var/prefect/server.json"
    if state.exists():
        supervisor = psutil.Process(json.loads(state.read_text(encoding="utf-8"))["pid"])
        os.kill(supervisor.pid, signal.SIGTERM)
        psutil.wait_procs([supervisor], timeout=300)


@pytest.fixture
def api(project: Path, ui: subprocess.Popen[bytes]) -> str:
    """The address of Prefect's API."""
    return str(json.loads((project / "var/prefect/server.json").read_text(encoding="utf-8"))["url"])


@contextmanager
def running(command: list[str], folder: Path, said: Path, end: signal.Signals, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run what a person would leave running in a terminal, and end it as a terminal does: all of its processes at once."""
    with said.open("a") as out:
        child = subprocess.Popen(
            command, cwd=folder, env=environment(folder, **settings), stdout=out, stderr=out, text=True, process_group=0
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            os.killpg(child.pid, end)
        try:
            child.wait(300)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def find_deployment(api: str, path: str) -> dict[str, Any]:
    def there() -> bool:
        return httpx.get(f"{api}/deployments/name/{path}").status_code == httpx.codes.OK

    wait_for(there)
    found: dict[str, Any] = httpx.get(f"{api}/deployments/name/{path}").raise_for_status().json()
    return found


def submit(api: str, deployment: dict[str, Any], **parameters: str) -> str:
    """Send the form, as the button of Prefect's page does, and return the flow run's id."""
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    return str(post(f"{api}/deployments/{deployment['id']}/create_flow_run", body, timeout=300).json()["id"])


def test_both_pages_are_served_on_loopback(project: Path, ui: subprocess.Popen[bytes]) -> None:
    said = (project / "var/ui.log").read_text(encoding="utf-8")
    addresses = dict(re.findall(r"^(MLflow|Prefect) +(http://127\.0\.0\.1:\d+)$", said, re.MULTILINE))

    for title in ("MLflow", "Prefect"):
        page = httpx.get(addresses[title], timeout=300, follow_redirects=True)
        assert (page.status_code, title in page.text) == (200, True)
    processes = below(ui.pid)
    assert any("mlflow" in " ".join(process.cmdline()) for process in processes)
    listening = [each for process in processes for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN]
    assert {each.laddr.ip for each in listening} == {"127.0.0.1"}


def below(pid: int) -> list[psutil.Process]:
    """The processes that `make ui` started for itself; Prefect's belong to other runs too."""
    children = psutil.Process(pid).children(recursive=True)
    return [each for each in children if not {"flows.server", "prefect"} & set(each.cmdline())]


def test_the_form_in_prefect_promotes_what_waits(project: Path, place: Environment, api: str) -> None:
    request = wait(place, 1)
    deployment = find_deployment(api, "decide/decide")
    schema = deployment["parameter_openapi_schema"]
    assert schema["required"] == ["run", "decision", "why"]
    assert schema["properties"]["decision"]["enum"] == ["approve", "reject"]
    with pytest.raises(httpx.HTTPStatusError, match="409"):
        submit(api, deployment, run=request.run, decision="maybe", why="?")
    made = submit(api, deployment, run=request.run[:8], decision="approve", why="the errors are harmless")
    wait_for(lambda: state_of(api, made) in ("COMPLETED", "FAILED", "CRASHED"))

    assert state_of(api, made) == "COMPLETED", (project / "var/approvals.log").read_text(encoding="utf-8")
    assert aliases(place) == {CHAMPION: 1}
    entry = Ledger(place.ledger).head("tickets")
    assert entry.who.endswith("(Prefect)")
    assert entry.why == "the errors are harmless"
    wait_for(lambda: bool(events(api, "retune.promoted")))
    (event,) = events(api, "retune.promoted")
    assert event["resource"]["prefect.resource.id"] == "retune.model.tickets"
    assert (event["payload"]["version"], event["payload"]["why"]) == (1, "the errors are harmless")


def state_of(api: str, run: str) -> str:
    return str(httpx.get(f"{api}/flow_runs/{run}").raise_for_status().json()["state"]["type"])


def events(api: str, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = post(f"{api}/events/filter", {"filter": {"event": {"name": [name]}}}).json()["events"]
    return found


def test_the_documented_flow_reacts_to_a_promotion(project: Path, place: Environment, api: str) -> None:
    page = (ROOT / "docs/react-to-promotions.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (project / "react.py").write_text(code, encoding="utf-8")
    judge(place, 2, champion=1 if Ledger(place.ledger).head("tickets") else None)
    settings = {"PREFECT_API_URL": api, "PREFECT_HOME": str(project / "var/prefect"), "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    with running([sys.executable, "react.py"], project, project / "var/react.log", end=signal.SIGTERM, **settings):
        find_deployment(api, "reload/reload")
        wait_for(lambda: len(post(f"{api}/automations/filter", {}).json()) == 1)
        promoted = retune(project, "promote", "tickets", "2")
        assert promoted.returncode == 0, promoted.stderr
        wait_for(lambda: (project / "tickets.champion").exists())

    assert (project / "tickets.champion").read_text(encoding="utf-8") == "version 2: it is PASS\n"


def test_ctrl_c_ends_it_all(project: Path, ui: subprocess.Popen[bytes]) -> None:
    processes = below(ui.pid)
    assert any("infra.approvals" in " ".join(process.cmdline()) for process in processes)
    os.killpg(ui.pid, signal.SIGINT)  # as a terminal does: to all of them

    assert (ui.wait(300), "Traceback" in (project / "var/ui.log").read_text(encoding="utf-8")) == (0, False)
    _, alive = psutil.wait_procs(processes, timeout=300)
    assert not alive
    assert not leftovers(project)
