"""A registry of versions that are promoted without their packages."""

import importlib
from pathlib import Path

import pytest

from components.mlflow_store.registry import Environment
from tests.support.promotion import create_versions, new_environment

promoting = importlib.import_module("components.mlflow_store.registry.promote")  # the package exports a function of this name


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment with three versions of separate runs, without packages."""
    environment = new_environment("local", tmp_path / "var")
    monkeypatch.setattr(promoting, "verify", lambda *_: None)
    create_versions(environment.mlflow, 1, 2, 3)
    return environment
