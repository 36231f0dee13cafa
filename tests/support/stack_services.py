"""What the tests of the shared stack ask of it, as an operator would: by its commands and its servers' addresses."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml

from infra.local.layout import Stack
from infra.local.services import ask
from tests.support.project import ROOT, change, environment, git, make_project, wait_for, write_params

FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def make_models(folder: Path, base: Path, rows: pd.DataFrame, count: int) -> Path:
    """A project of `count` models, each with data of its own, committed; its own is `tickets`, the others are m1, m2 …"""
    project = make_project(folder, base, rows, tuned=True)
    deployed = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    deployed["deployments"] = [one for one in deployed["deployments"] if one["name"] == "retrain"]
    deployed["deployments"][0]["schedules"] = []
    (project / "prefect.yaml").write_text(yaml.safe_dump(deployed, sort_keys=False), encoding="utf-8")
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    untuned = {"tune": params["tune"] | {"initial_trial": {}, "space": {}}}
    for number in range(1, count):
        home = project / "models" / f"m{number}"
        home.mkdir(parents=True)
        train = {"seed": 100 + number, "learning_rate": 5.0e-3}
        rows.drop(columns="group").iloc[number:].to_csv(home / "tickets.csv", index=False)
        write_params(home, change(params | untuned, {"name": home.name, "base": {"model": "../../base-model"}, "train": train}))
    commit(project)
    return project


def commit(project: Path) -> None:
    git(project, "add", "-A")
    git(project, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "models")


def local(project: Path, verb: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m infra.local` in the project."""
    command = [sys.executable, "-m", "infra.local", verb, *arguments]
    return subprocess.run(command, cwd=project, env=environment(project, forks=True, **more), capture_output=True, text=True, timeout=600)


def use(stack: Stack, project: Path) -> None:
    """Switch a project to the stack, as the guide says."""
    shutil.copy(stack.folder / "retune.env", project / ".env")


def start(stack: Stack, model: str) -> str:
    """Ask for a run of a model's deployment, and return its id."""
    found = ask(stack, "/deployments/filter", {"deployments": {"name": {"any_": [model]}}})
    answer = ask(stack, f"/deployments/{found[0]['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    return str(answer["id"])


def run_of(stack: Stack, run: str) -> dict[str, Any]:
    """What Prefect says of a flow run."""
    found: list[dict[str, Any]] = ask(stack, "/flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    return found[0]


def finish(stack: Stack, *runs: str, seconds: float = 1500) -> list[str]:
    """Wait until flow runs have ended, and return what their last states say."""
    query = {"flow_runs": {"id": {"any_": list(runs)}}}
    wait_for(lambda: all(run["state_type"] in FINAL for run in ask(stack, "/flow_runs/filter", query)), seconds, every=2)
    return [str(run_of(stack, run)["state"]["message"]) for run in runs]


def process_of(run: str) -> psutil.Process | None:
    """The process of a flow run."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("PREFECT__FLOW_RUN_ID") == run:
                return process
        except (psutil.Error, OSError):
            continue
    return None


def is_training(run: str) -> bool:
    """Whether a flow run's training has begun to write its history."""
    process = process_of(run)
    if process is None:
        return False
    try:
        history = Path(process.cwd()) / "models/trained/history.jsonl"
        return history.is_file() and history.stat().st_size > 0
    except (psutil.Error, OSError):
        return False


def kill_machine_of(run: str) -> None:
    """End a flow run, all that it has started and the worker that started it, at once and without a word."""
    process = process_of(run)
    assert process is not None
    worker = next(one for one in process.parents() if "worker" in one.cmdline())
    for victim in (worker, *worker.children(recursive=True)):
        victim.kill()


def make_folder() -> Path:
    """A folder that PostgreSQL's own user can enter, where root runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix="retune-stack-"))
    folder.chmod(0o755)
    return folder


def said(*logs: Path) -> str:
    """All that the services have written."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace") for log in logs)
