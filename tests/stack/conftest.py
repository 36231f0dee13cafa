"""One shared stack and one project of eight models for all tests of this folder: starting both takes a minute."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from flows.settings import read_settings
from infra.local.layout import Stack, open_stack
from infra.local.services import started_by
from tests.stack.served import local, make_folder, make_models, use

MODELS = 8


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.stack)
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Path:
    return make_models(tmp_path_factory.mktemp("stack") / "project", tiny_base, tickets, MODELS)


@pytest.fixture
def settings_of_stack(stack: Stack, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let MLflow's client in this process know who it is."""
    for name, value in read_settings(project).variables().items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def stack(project: Path) -> Iterator[Stack]:
    folder = make_folder()
    try:
        done = local(project, "up", str(folder / "stack"))
        assert done.returncode == 0, done.stderr
        stack = open_stack(folder / "stack")
        use(stack, project)
        yield stack
    finally:
        done = local(project, "down", str(folder / "stack"))
        left = started_by(open_stack(folder / "stack"))
        shutil.rmtree(folder)
        assert done.returncode == 0, done.stderr
        assert not left, left
