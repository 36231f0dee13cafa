"""A registered model as base model: pinned by its version number, not by an alias."""

import shutil
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from components.artifacts.manifest import BaseManifest
from components.core.errors import BadModel, NotFound
from components.core.hashing import digest_file
from components.data.base_model import BaseParams, pin_base
from components.mlflow_store.registry import model_folder
from components.model import tasks
from flows.project.stores import find_registered
from flows.project.workspace import Workspace
from tests.support.learn import spec_of
from tests.support.registered import make_registered

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> tuple[str, str, Path]:
    """Two versions, the first one the champion: URL of the store, name of the model, and project."""
    project = tmp_path_factory.mktemp("project")
    uri, _ = make_registered(project, tiny_base, tickets, versions=2)
    name = "tickets"
    MlflowClient(uri).set_registered_model_alias(name, "champion", "1")
    return uri, name, project


def pin(uri: str, out: Path, model: str) -> BaseManifest:
    return pin_base(out.parent, out, base=BaseParams(model=model), registered=partial(model_folder, uri))


@pytest.mark.exhaustive
def test_version_is_pinned_with_its_number_and_hashes(store: tuple[str, str, Path], tmp_path: Path) -> None:
    uri, name, _ = store
    manifest = pin(uri, tmp_path / "base", f"models:/{name}@champion")
    weights = next(part.sha256 for part in manifest.parts if part.name == "model.safetensors")

    assert manifest.source == f"models:/{name}/1"
    assert weights == digest_file(tmp_path / "base/model.safetensors")
    assert weights == digest_file(model_folder(uri, f"models:/{name}/1")[0] / "model.safetensors")
    assert not (tmp_path / "base/retune.json").exists()
    assert tasks.load("masked_lm").build_model(tmp_path / "base", spec_of())


def test_base_follows_a_moved_alias(store: tuple[str, str, Path], tmp_path: Path) -> None:
    uri, name, _ = store
    first = pin(uri, tmp_path / "base", f"models:/{name}@champion")
    assert pin(uri, tmp_path / "base", f"models:/{name}@champion") == first

    second = pin(uri, tmp_path / "base", f"models:/{name}/2")
    assert second.source == f"models:/{name}/2"
    assert second.digest != first.digest


def test_flow_uses_the_registry_of_the_project(store: tuple[str, str, Path], tmp_path: Path) -> None:
    _, name, project = store
    folder, source = find_registered(Workspace(project, tmp_path, tmp_path / "params.yaml"), f"models:/{name}@champion")

    assert source == f"models:/{name}/1"
    assert (folder / "model.safetensors").is_file()


def test_unregistered_or_changed_model_is_refused(store: tuple[str, str, Path], tmp_path: Path) -> None:
    uri, name, _ = store
    with pytest.raises(NotFound, match="has no previous"):
        pin(uri, tmp_path / "base", f"models:/{name}@previous")
    with pytest.raises(NotFound, match="is not a version"):
        pin(uri, tmp_path / "base", f"models:/{name}/newest")
    with pytest.raises(NotFound):
        pin(uri, tmp_path / "base", "models:/nobody/1")
    folder, _ = model_folder(uri, f"models:/{name}/2")
    whole = shutil.copy(folder / "model.safetensors", tmp_path / "whole")
    (folder / "model.safetensors").write_bytes(b"others")
    try:
        with pytest.raises(BadModel, match="not the model that was registered"):
            pin(uri, tmp_path / "base", f"models:/{name}/2")
    finally:
        shutil.copy(whole, folder / "model.safetensors")
    assert not (tmp_path / "base").exists()
