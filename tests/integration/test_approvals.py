"""Prefect's page: its form decides about a run that waits, and its events start whatever wants to react."""

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
import pytest

from components.ledger import Ledger
from components.registry import CHAMPION, Environment
from tests.finished import make_finished
from tests.integration.test_promotion import aliases, furnish, judge, wait
from tests.project import ROOT, environment, make_project, retune, wait_for

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
def api(project: Path) -> Iterator[str]:
    """`make ui`, which serves the form; yields the address of Prefect's server."""
    said = project / "var/ui.log"
    with running([sys.executable, "-m", "infra.ui"], project, said, end=signal.SIGINT) as ui:
        wait_for(lambda: "Ctrl-C ends both" in said.read_text(encoding="utf-8") or ui.poll() is not None, 200)
        assert ui.poll() is None, said.read_text(encoding="utf-8")
        yield str(json.loads((project / "var/prefect/server.json").read_text(encoding="utf-8"))["url"])
    os.kill(json.loads((project / "var/prefect/server.json").read_text(encoding="utf-8"))["pid"], signal.SIGTERM)


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
        os.killpg(child.pid, end)
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def find_deployment(api: str, path: str) -> dict[str, Any]:
    def there() -> bool:
        return httpx.get(f"{api}/deployments/name/{path}").status_code == httpx.codes.OK

    wait_for(there, 90)
    found: dict[str, Any] = httpx.get(f"{api}/deployments/name/{path}").raise_for_status().json()
    return found


def submit(api: str, deployment: dict[str, Any], **parameters: str) -> httpx.Response:
    """Send the form, as the button of Prefect's page does."""
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    return httpx.post(f"{api}/deployments/{deployment['id']}/create_flow_run", json=body, timeout=30)


def test_the_form_in_prefect_promotes_what_waits(project: Path, place: Environment, api: str) -> None:
    request = wait(place, 1)
    deployment = find_deployment(api, "decide/decide")
    schema = deployment["parameter_openapi_schema"]
    assert schema["required"] == ["run", "decision", "why"]
    assert schema["properties"]["decision"]["enum"] == ["approve", "reject"]
    assert submit(api, deployment, run=request.run, decision="maybe", why="?").status_code == 409
    made = submit(api, deployment, run=request.run[:8], decision="approve", why="the errors are harmless").raise_for_status().json()
    wait_for(lambda: state_of(api, made["id"]) in ("COMPLETED", "FAILED", "CRASHED"), 200)

    assert state_of(api, made["id"]) == "COMPLETED", (project / "var/approvals.log").read_text(encoding="utf-8")
    assert aliases(place) == {CHAMPION: 1}
    entry = Ledger(place.ledger).head("tickets")
    assert entry.who.endswith("(Prefect)")
    assert entry.why == "the errors are harmless"
    wait_for(lambda: bool(events(api, "retune.promoted")), 30)
    (event,) = events(api, "retune.promoted")
    assert event["resource"]["prefect.resource.id"] == "retune.model.tickets"
    assert (event["payload"]["version"], event["payload"]["why"]) == (1, "the errors are harmless")


def state_of(api: str, run: str) -> str:
    return str(httpx.get(f"{api}/flow_runs/{run}").raise_for_status().json()["state"]["type"])


def events(api: str, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.post(f"{api}/events/filter", json={"filter": {"event": {"name": [name]}}}).json()["events"]
    return found


def test_the_documented_flow_reacts_to_a_promotion(project: Path, place: Environment, api: str) -> None:
    page = (ROOT / "docs/react-to-promotions.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (project / "react.py").write_text(code, encoding="utf-8")
    judge(place, 2, champion=1 if Ledger(place.ledger).head("tickets") else None)
    settings = {"PREFECT_API_URL": api, "PREFECT_HOME": str(project / "var/prefect"), "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    with running([sys.executable, "react.py"], project, project / "var/react.log", end=signal.SIGTERM, **settings):
        find_deployment(api, "reload/reload")
        wait_for(lambda: len(httpx.post(f"{api}/automations/filter", json={}).json()) == 1, 30)
        promoted = retune(project, "promote", "tickets", "2")
        assert promoted.returncode == 0, promoted.stderr
        wait_for(lambda: (project / "tickets.champion").exists(), 200)

    assert (project / "tickets.champion").read_text(encoding="utf-8") == "version 2: it is PASS\n"
