"""One project of four models and one shared stack for all tests of this folder: starting both takes a minute.

The project first has a champion in var/, which is migrated into the empty stack; then the workers retrain all models.
"""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from flows.settings import read_settings
from infra.local.layout import MIGRATE_TO, Stack, open_stack, read_variables
from infra.local.services import started_by
from tests.support.project import BIN, environment, wait_for
from tests.support.stack_services import (
    MODELS,
    Migration,
    champion_reports,
    connect,
    file_digests,
    local,
    make_folder,
    make_models,
    output_of,
)


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
    path = make_folder()
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def stack(project: Path, folder: Path) -> Iterator[Stack]:
    """Start the stack while the project trains a champion in var/; at the end no process of the stack may be left."""
    path = folder / "stack"
    champion = subprocess.Popen(
        [str(BIN / "retune"), "run", "--inline"],
        cwd=project,
        env=environment(project, forks=True),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        done = local(project, "up", str(path))
        assert done.returncode == 0, done.stderr
        output = champion.communicate()[0]
        assert champion.returncode == 0, output.decode()
        yield open_stack(path)
    finally:
        done = local(project, "down", str(path))
        assert done.returncode == 0, done.stderr
        assert not started_by(open_stack(path))


@pytest.fixture(scope="session")
def migrated(project: Path, stack: Stack) -> Migration:
    """Migrate the project's champion into the stack; the first attempt is killed while it sends artifacts."""
    files, reports = file_digests(project / "var"), champion_reports(project)
    connect(stack, project)
    target = {MIGRATE_TO: read_variables(stack.folder / "secrets.env")[MIGRATE_TO]}
    planned = output_of(project, "migrate", "--dry-run", "--json", **target)
    assert not (project / "var/migrated.jsonl").exists()
    first = subprocess.Popen([str(BIN / "retune"), "migrate"], cwd=project, env=environment(project, **target), stderr=subprocess.DEVNULL)
    notes = project / "var/migrated.jsonl"
    wait_for(lambda: notes.exists() and notes.read_bytes().count(b"\n") > 5, every=0.01)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    done = output_of(project, "migrate", "--json", **target)
    return Migration(files, reports, json.loads(planned), json.loads(done), json.loads(output_of(project, "migrate", "--json", **target)))


@pytest.fixture
def settings_of_stack(stack: Stack, project: Path, migrated: Migration, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the account of MLflow's client in this process."""
    for name, value in read_settings(project).variables().items():
        monkeypatch.setenv(name, value)
