"""A whole Retune project on twenty seconds' worth of data: the real code, a tiny model, 240 tickets."""

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
    "preprocess": {"max_length": 16, "split_by": "id"},  # by its ids, four epochs on the training rows learn all three classes
    "train": {"epochs": 4, "precision": "float32", "threads": 1, "batch_size": 16},
    "gates": {
        "floor": {"metric": "accuracy", "at_least": 0.4},
        "baseline": {"metric": "accuracy", "against": "majority"},
        "champion": {"margin": 0.2},
        "best_champion": {"margin": 0.2},
        "slices": {"columns": []},
        "calibration": {"role": "informational"},  # a tiny model's probabilities change a lot from training to training
        # These load the version once more, or several times: the tests that are about them ask for them.
        "servability": {"role": "off"},
        "behaviour": {"role": "off", "cases": ""},
        "cost": {"role": "off"},
    },
}
TUNE = {
    "metric": "macro_f1",
    "trials": 2,
    "max_minutes": 5,
    "train_fraction": 0.5,
    "epochs": 1,
    "evaluations": 2,
    "seed": 7,
    "initial_trial": {"learning_rate": 5.0e-3},
    "space": {"learning_rate": {"type": "float", "low": 1.0e-3, "high": 1.0e-2, "log": True}},
}


def make_project(folder: Path, base: Path, rows: pd.DataFrame, name: str = "tickets", tuned: bool = False) -> Path:
    """Copy the project's code into `folder` with tiny settings, and commit it to git; `tuned` searches the learning rate.

    Without their groups the 40 or so test rows are enough for a gate to decide.
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
    params["train"] |= {} if tuned else {"learning_rate": 5.0e-3}
    write_params(folder, change(params, TINY))
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start")
    return folder


def change(params: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `params` with `changes` laid over them, section by section."""
    merged = dict(params)
    for key, value in changes.items():
        merged[key] = change(merged[key], value) if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
    return merged


def edit(folder: Path, changes: dict[str, Any]) -> None:
    """Lay `changes` over the project's params.yaml."""
    write_params(folder, change(yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8")), changes))


def write_params(folder: Path, params: dict[str, Any]) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def environment(folder: Path, forks: bool = False, **more: str) -> dict[str, str]:
    """The environment of an activated venv; the project's own code comes first. With `forks`, commands need not import what is heavy."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_TRACKING", "RETUNE_", "DVC_ROOT"))
    }
    own = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder), "RETUNE_SERVER_LINGER": "20"}
    found = kept | own | more
    if forks:
        found |= {"PYTHONPATH": f"{ROOT / 'tests/support/forks'}{os.pathsep}{found['PYTHONPATH']}", "FORK_SERVER": fork_server.address()}
    return found


@contextlib.contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a process that is gone at the end, however the test ends: one left running is blamed on a later test."""
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
    """What `retune status --json` says."""
    answer = retune(folder, "status", "--json", *arguments)
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def prefect_of(var: Path) -> str:
    """The address of the API of the managed server over `var`, whose credential this process knows from now on."""
    url = str(json.loads((var / "prefect/server.json").read_text(encoding="utf-8"))["url"])
    use_credential(url, credential.read(var) or "")
    return url


def leftovers(folder: Path) -> list[str]:
    """The processes that still work in `folder`, but for the managed server."""
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            if process.cwd() == str(folder) and "flows.orchestrator.server" not in command and "prefect.server" not in command:
                found.append(command)
        except psutil.Error:
            continue
    return found


def wait_for(happened: Callable[[], bool], seconds: float = 300, every: float = 0.2) -> None:
    """Wait until something happened, and fail when it never does: the deadline is for a busy machine, and no test is about it."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(every)
