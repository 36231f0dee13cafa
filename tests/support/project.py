"""A Retune project in a temporary folder: the real code, a two-layer model and 240 tickets; commands run in it."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml

from flows.orchestrator import credential
from flows.orchestrator.prefect_api import use_credential
from tests.support import fork_server

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

TINY: dict[str, dict[str, Any]] = {
    "snapshot": {"source": "tickets.csv", "columns": {}},
    "base": {"model": "base-model"},
    "validate": {"min_rows_per_class": 5},
    "preprocess": {"max_length": 16, "split_by": "id"},  # with this split, four epochs learn all three classes
    "train": {"epochs": 4, "precision": "float32", "threads": 1, "batch_size": 16},
    "gates": {
        "floor": {"metric": "accuracy", "at_least": 0.4},
        "baseline": {"metric": "accuracy", "against": "majority"},
        "champion": {"margin": 0.2},
        "best_champion": {"margin": 0.2},
        "slices": {"columns": []},
        "calibration": {"role": "informational"},  # the probabilities of a tiny model vary between trainings
        # These load the version again; the tests of these gates switch them on.
        "servability": {"role": "off"},
        "behaviour": {"role": "off", "cases": ""},
        "cost": {"role": "off"},
    },
}
TUNE = {
    "metric": "macro_f1",
    "trials": 2,
    "minutes": 5,
    "train_fraction": 0.5,
    "epochs": 1,
    "evaluations": 2,
    "seed": 7,
    "initial_trial": {"learning_rate": 5.0e-3},
    "space": {"learning_rate": {"type": "float", "low": 1.0e-3, "high": 1.0e-2, "log": True}},
}


def make_project(folder: Path, base: Path, rows: pd.DataFrame, name: str = "tickets", tuned: bool = False) -> Path:
    """Copy the project's code into `folder` with tiny settings, and commit it to git; `tuned` searches the learning rate.

    Without groups, about 40 test rows are enough for a gate to decide.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("components", "flows", "infra", ".dvc"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "tmp", "cache", "config.local"))
    for part in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / part, folder / part)
    shutil.copytree(base, folder / "base-model", ignore=shutil.ignore_patterns("manifest.json"))
    rows.drop(columns="group").to_csv(folder / "tickets.csv", index=False)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params |= {"name": name, "tune": TUNE if tuned else TUNE | {"initial_trial": {}, "space": {}}}
    params["train"] |= {"learning_rate": "tuned" if tuned else 5.0e-3}
    write_params(folder, change(params, TINY))
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start")
    return folder


def change(params: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `params` with `changes` merged into its sections."""
    merged = dict(params)
    for key, value in changes.items():
        merged[key] = change(merged[key], value) if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
    return merged


def edit(folder: Path, changes: dict[str, Any]) -> None:
    """Merge `changes` into the project's params.yaml."""
    write_params(folder, change(yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8")), changes))


def write_params(folder: Path, params: dict[str, Any]) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def environment(folder: Path, forks: bool = False, **more: str) -> dict[str, str]:
    """Return the environment of an activated venv with the project's code first; with `forks`, commands run in the fork server."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_TRACKING", "RETUNE_", "DVC_ROOT"))
    }
    own = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder), "RETUNE_SERVER_LINGER": "20"}
    variables = inherited | own | more
    if forks:
        variables |= fork_server.variables(variables["PYTHONPATH"])
    return variables


@contextlib.contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a process and kill it at the end of the test, also if the test fails."""
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def retune(folder: Path, *arguments: str, timeout: float = 400, forks: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a `retune` command in the project, as a user does."""
    return subprocess.run(
        [str(BIN / "retune"), *arguments],
        cwd=folder,
        env=environment(folder, forks, **more),
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def dvc(folder: Path, *arguments: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    """Run a DVC command in the project."""
    return subprocess.run(
        [str(BIN / "dvc"), *arguments], cwd=folder, env=environment(folder, forks=True), capture_output=True, text=True, timeout=timeout
    )


def status(folder: Path, *arguments: str) -> dict[str, Any]:
    """Return the output of `retune status --json`."""
    result = retune(folder, "status", "--json", *arguments)
    assert result.returncode == 0, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def prefect_of(var: Path) -> str:
    """Return the API URL of the managed server of `var`, and set its credential in this process."""
    url = str(json.loads((var / "prefect/server.json").read_text(encoding="utf-8"))["url"])
    use_credential(url, credential.read(var) or "")
    return url


def leftovers(folder: Path) -> list[str]:
    """Return the commands of the processes in `folder`, except the managed server."""
    commands = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            if process.cwd() == str(folder) and "flows.orchestrator.server" not in command and "prefect.server" not in command:
                commands.append(command)
        except psutil.Error:
            continue
    return commands


def wait_for(happened: Callable[[], bool], seconds: float = 300, every: float = 0.2) -> None:
    """Wait until `happened()` is true, and fail after `seconds`; the deadline only ends tests that hang."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(every)
