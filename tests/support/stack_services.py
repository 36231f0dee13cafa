"""The shared stack as its tests use it: its commands, its flow runs, its logs, and the migration of a project into it."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml

from flows.orchestrator.prefect_api import post, use_credential
from infra.local.layout import USER, Stack
from tests.support.project import ROOT, change, environment, git, make_project, retune, wait_for, write_params

MODELS = 4
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


def ask(stack: Stack, path: str, body: object) -> Any:
    """Return the answer of the stack's Prefect server."""
    use_credential(stack.prefect, f"{USER}:{stack.secrets['PREFECT_PASSWORD']}")
    return post(f"{stack.prefect}{path}", body, timeout=5).json()


def make_models(folder: Path, base: Path, rows: pd.DataFrame, count: int) -> Path:
    """Create a project of `count` models with separate data, `tickets`, m1, m2 …, and commit it."""
    project = make_project(folder, base, rows, tuned=True)
    deployed = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
    deployed["deployments"] = [deployment for deployment in deployed["deployments"] if deployment["name"] == "retrain"]
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
    """Commit all changes of a project."""
    git(project, "add", "-A")
    git(project, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "models")


def local(project: Path, verb: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m infra.local` in the project."""
    command = [sys.executable, "-m", "infra.local", verb, *arguments]
    return subprocess.run(command, cwd=project, env=environment(project, forks=True, **more), capture_output=True, text=True, timeout=600)


def connect(stack: Stack, project: Path) -> None:
    """Write the settings of the stack to a project's .env, as the guide says."""
    shutil.copy(stack.folder / "retune.env", project / ".env")


def start_run(stack: Stack, model: str) -> str:
    """Schedule a run of a model's deployment, and return its id."""
    deployments = ask(stack, "/deployments/filter", {"deployments": {"name": {"any_": [model]}}})
    run = ask(stack, f"/deployments/{deployments[0]['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    return str(run["id"])


def read_run(stack: Stack, run: str) -> dict[str, Any]:
    """Return a flow run as Prefect reports it."""
    runs: list[dict[str, Any]] = ask(stack, "/flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    return runs[0]


def wait_for_runs(stack: Stack, *runs: str, seconds: float = 1500) -> list[str]:
    """Wait until flow runs have ended, and return the messages of their last states."""
    query = {"flow_runs": {"id": {"any_": list(runs)}}}
    wait_for(lambda: all(run["state_type"] in FINAL for run in ask(stack, "/flow_runs/filter", query)), seconds, every=2)
    return [str(read_run(stack, run)["state"]["message"]) for run in runs]


def process_of(run: str) -> psutil.Process | None:
    """Return the process of a flow run, None if it has ended."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("PREFECT__FLOW_RUN_ID") == run:
                return process
        except (psutil.Error, OSError):
            continue
    return None


def is_training(run: str) -> bool:
    """Return whether the training of a flow run has begun to write its history."""
    process = process_of(run)
    if process is None:
        return False
    try:
        history = Path(process.cwd()) / "models/trained/history.jsonl"
        return history.is_file() and history.stat().st_size > 0
    except (psutil.Error, OSError):
        return False


def kill_with_worker(run: str) -> None:
    """Kill a flow run, its worker, and every process that they started, as a power cut does."""
    process = process_of(run)
    assert process is not None
    worker = next(parent for parent in process.parents() if "worker" in parent.cmdline())
    for victim in (worker, *worker.children(recursive=True)):
        victim.kill()


def make_folder() -> Path:
    """Create a temporary folder that the user of PostgreSQL can enter if root runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix="retune-stack-"))
    folder.chmod(0o755)
    return folder


def read_logs(*logs: Path) -> str:
    """Return the text of all logs."""
    return "\n".join(log.read_text(encoding="utf-8", errors="replace") for log in logs)


@dataclass(frozen=True)
class Migration:
    """A project before its migration (digests of var/, reports on the champion), and the results of a dry run and two migrations."""

    files: dict[str, str]
    reports: dict[str, str]
    planned: dict[str, Any]
    done: dict[str, Any]
    again: dict[str, Any]


def output_of(project: Path, *command: str, **variables: str) -> str:
    """Return the output of a `retune` command that must succeed."""
    result = retune(project, *command, **variables)
    assert result.returncode == 0, result.stderr
    return result.stdout


def file_digests(folder: Path) -> dict[str, str]:
    """Return the digest of each file in a folder, without locks and the progress of a migration."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".lock" and path.name != "migrated.jsonl"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def champion_reports(project: Path) -> dict[str, str]:
    """Return the output of three commands about the champion, by command."""
    commands = ("status --json", "history tickets --json", "why tickets 1 --json")
    return {command: output_of(project, *command.split()) for command in commands}
