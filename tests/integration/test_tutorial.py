"""docs/tutorial.md, command by command as it is written, on a small base model."""

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.support.pages import blocks
from tests.support.project import ROOT, git, make_project, retune, status

TUTORIAL = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@t")


def commands() -> list[list[str]]:
    """The lines of the page's shell blocks, without the activation of the venv."""
    return [
        shlex.split(line, comments=True)
        for block in blocks(TUTORIAL, "bash")
        for line in block.splitlines()
        if line and not line.startswith("source ")
    ]


@pytest.fixture
def project(tmp_path: Path, tiny_base: Path, tickets: pd.DataFrame) -> Iterator[Path]:
    folder = make_project(tmp_path / "project", tiny_base, tickets)
    for name in ("params.yaml", "prefect.yaml"):
        shutil.copy(ROOT / name, folder / name)
    tickets.rename(columns={"group": "customer"})[["id", "text", "label", "customer"]].to_csv(folder / "tickets.csv", index=False)
    yield folder
    retune(folder, "down")


@pytest.mark.exhaustive
def test_tutorial_runs_as_written(project: Path) -> None:
    for command in commands():
        if command[0] == "git":
            git(project, *(IDENTITY if command[1] == "commit" else ()), *command[1:])
            continue
        assert command[0] == "retune", command
        done = retune(project, *command[1:], forks=command[1] not in ("up", "down", "deploy"))
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        if command[1] == "init":
            use_small_model(project)
        if command[1] == "run":
            approve(project)
        if command == ["retune", "status", "--model", "tickets"]:
            set_schedule(project)

    assert "champion" in retune(project, "status", "--model", "tickets").stdout


def approve(project: Path) -> None:
    """Approve a waiting run, as the page says for rows that are too few for the gates."""
    for request in status(project, "--model", "tickets")["standing"]["waiting"]:
        done = retune(project, "approve", request["run"], "--why", "checked manually")
        assert done.returncode == 0, done.stdout + done.stderr


def set_schedule(project: Path) -> None:
    """Write the section of the page's YAML block into the settings."""
    path = project / "models/tickets/params.yaml"
    (block,) = blocks(TUTORIAL, "yaml")
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text(encoding="utf-8")) | yaml.safe_load(block)), encoding="utf-8")


def use_small_model(project: Path) -> None:
    """Replace the base model and the time of the search, which the page leaves at their defaults."""
    path = project / "models/tickets/params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    params["base"]["model"] = str(project / "base-model")
    params["tune"]["minutes"] = 1
    params["train"] |= {"learning_rate": 5.0e-3, "epochs": 6, "batch_size": 16, "warmup": 0.0}
    params["gates"]["floor"]["at_least"] = 0.4
    path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
