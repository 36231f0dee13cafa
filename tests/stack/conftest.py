"""One project of four models and one shared stack for all tests of this folder: starting both takes a minute.

The project has a champion in var/ first, which is carried into the stack while that is empty; then the workers retrain all models.
"""

import hashlib
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from flows.settings import read_settings
from infra.local.layout import MIGRATE_TO, Stack, open_stack, read_variables
from infra.local.services import started_by
from tests.support.project import BIN, environment, retune, wait_for
from tests.support.stack_services import local, make_folder, make_models, use

MODELS = 4


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.stack)
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Path:
    return make_models(tmp_path_factory.mktemp("stack") / "project", tiny_base, tickets, MODELS)


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    place = make_folder()
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="session")
def stack(project: Path, folder: Path) -> Iterator[Stack]:
    """The stack, started while the project makes a champion in var/; afterwards nothing of it is left running."""
    place = folder / "stack"
    champion = subprocess.Popen(
        [str(BIN / "retune"), "run", "--inline"],
        cwd=project,
        env=environment(project, forks=True),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        done = local(project, "up", str(place))
        assert done.returncode == 0, done.stderr
        said = champion.communicate()[0]
        assert champion.returncode == 0, said.decode()
        yield open_stack(place)
    finally:
        done = local(project, "down", str(place))
        assert done.returncode == 0, done.stderr
        assert not started_by(open_stack(place))


@dataclass(frozen=True)
class Migration:
    """What the project kept in var/ and said of its champion before; what the migration said, planned and at last."""

    files: dict[str, str]
    answers: dict[str, str]
    planned: dict[str, Any]
    done: dict[str, Any]
    again: dict[str, Any]


@pytest.fixture(scope="session")
def migrated(project: Path, stack: Stack) -> Migration:
    """The project's champion carried into the stack; the first try was killed while it sent artifacts."""
    files, answers = hashes(project / "var"), asked(project)
    use(stack, project)
    target = {MIGRATE_TO: read_variables(stack.folder / "secrets.env")[MIGRATE_TO]}
    planned = say(project, "migrate", "--dry-run", "--json", **target)
    assert not (project / "var/migrated.jsonl").exists()
    first = subprocess.Popen([str(BIN / "retune"), "migrate"], cwd=project, env=environment(project, **target), stderr=subprocess.DEVNULL)
    notes = project / "var/migrated.jsonl"
    wait_for(lambda: notes.exists() and notes.read_bytes().count(b"\n") > 5, every=0.01)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    done = say(project, "migrate", "--json", **target)
    return Migration(files, answers, json.loads(planned), json.loads(done), json.loads(say(project, "migrate", "--json", **target)))


def say(project: Path, *command: str, **more: str) -> str:
    """What a command of `retune` that works prints."""
    answer = retune(project, *command, **more)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def hashes(place: Path) -> dict[str, str]:
    """What is kept there, but for locks and what says how far a migration came."""
    kept = [path for path in sorted(place.rglob("*")) if path.is_file() and path.suffix != ".lock" and path.name != "migrated.jsonl"]
    return {str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def asked(project: Path) -> dict[str, str]:
    """Return what three commands report about the champion."""
    commands = ("status --json", "history tickets --json", "why tickets 1 --json")
    return {command: say(project, *command.split()) for command in commands}


@pytest.fixture
def settings_of_stack(stack: Stack, project: Path, migrated: Migration, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MLflow's client in this process know who it is."""
    for name, value in read_settings(project).variables().items():
        monkeypatch.setenv(name, value)
