"""Versions that another environment uses are not pruned from the registry that built them."""

import json
import sqlite3
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.core.errors import RetuneError, Unavailable
from components.ledger import Ledger
from components.mlflow_store.connection import ensure_experiment
from components.mlflow_store.registry import CHAMPION
from components.mlflow_store.registry.versions import COMPLETE, KEY
from flows.audit.prune import PrunePlan, plan, prune
from flows.dvc_adapter.cache import object_path
from tests.support.finished import new_store

pytestmark = pytest.mark.slow

NAME = "tickets"
HASHES = {f"k{digit}": digit * 32 for digit in "123"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with candidates 1 and 2 and the data of three; the environment production has candidates 9, 2 and 3."""
    project = tmp_path / "project"
    for folder in ("components", "flows"):
        (project / folder).mkdir(parents=True)
    (project / "dvc.yaml").touch()
    register(new_store(project / "var"), "k1", "k2")
    Ledger(f"sqlite:///{project}/var/ledger.db")
    for digest in HASHES.values():
        path = object_path(project, digest)
        path.parent.mkdir(parents=True)
        path.write_text("rows")
    register(new_store(tmp_path / "production"), "k9", "k2", "k3")
    name_production(tmp_path, monkeypatch)
    return project


def register(uri: str, *keys: str) -> None:
    client = MlflowClient(uri)
    client.create_registered_model(NAME)
    for key in keys:
        run = client.create_run(ensure_experiment(client, uri, NAME)).info.run_id
        hashes = json.dumps({"data/raw": HASHES.get(key, "")})
        client.create_model_version(NAME, "file:///nowhere", run, tags={KEY: key, COMPLETE: "true", "retune.dvc_lock": hashes})


def name_production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    stores = {"mlflow": f"sqlite:///{tmp_path}/production/mlflow.db", "ledger": f"sqlite:///{tmp_path}/production/ledger.db"} | more
    monkeypatch.setenv("RETUNE_ENVIRONMENTS", json.dumps({"production": stores}))


def promoted(tmp_path: Path, *numbers: int) -> None:
    """Promote these versions in production, one after another."""
    keys = {1: "k9", 2: "k2", 3: "k3"}
    ledger = Ledger(f"sqlite:///{tmp_path}/production/ledger.db")
    for number in numbers:
        ledger.append(NAME, expected="any", action="promoted", version=number, key=keys[number], who="ada", why="so")
    MlflowClient(f"sqlite:///{tmp_path}/production/mlflow.db").set_registered_model_alias(NAME, CHAMPION, str(numbers[-1]))


def names(deletions: PrunePlan, kind: str) -> set[str]:
    return {item.name for item in deletions.doomed if item.kind == kind}


def test_remote_champion_and_its_data_are_kept(project: Path, tmp_path: Path) -> None:
    promoted(tmp_path, 2)
    deletions = plan(NAME, 0, 7, project)

    assert deletions.kept == {NAME: {2: "is champion in production"}}
    assert (names(deletions, "version"), names(deletions, "DVC object")) == ({"tickets 1"}, {HASHES["k1"]})


def test_past_remote_champion_is_kept_even_if_deleted_there(project: Path, tmp_path: Path) -> None:
    promoted(tmp_path, 2, 1)
    MlflowClient(f"sqlite:///{tmp_path}/production/mlflow.db").delete_model_version(NAME, "2")

    assert plan(NAME, 0, 7, project).kept == {NAME: {2: "in the ledger in production"}}


def test_data_of_remote_champion_missing_here_is_kept(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promoted(tmp_path, 3)
    monkeypatch.setitem(HASHES, "k1", HASHES["k3"])
    MlflowClient(f"sqlite:///{project}/var/mlflow.db").set_model_version_tag(
        NAME, "1", "retune.dvc_lock", json.dumps({"data/raw": HASHES["k3"]})
    )
    deletions = plan(NAME, 0, 7, project)

    assert (names(deletions, "version"), names(deletions, "DVC object")) == ({"tickets 1", "tickets 2"}, {HASHES["k2"]})


def test_local_reason_is_reported_first(project: Path, tmp_path: Path) -> None:
    promoted(tmp_path, 2)
    MlflowClient(f"sqlite:///{project}/var/mlflow.db").set_registered_model_alias(NAME, "challenger", "2")

    assert plan(NAME, 2, 7, project).kept == {NAME: {1: "one of the newest 2", 2: "is challenger"}}


@pytest.mark.parametrize("folder", ["project/var", "production"])
def test_changed_ledger_prevents_pruning(project: Path, tmp_path: Path, folder: str) -> None:
    promoted(tmp_path, 2)
    Ledger(f"sqlite:///{project}/var/ledger.db").append(NAME, expected=None, action="promoted", version=1, key="k1", who="ada", why="so")
    connection = sqlite3.connect(tmp_path / folder / "ledger.db")
    connection.execute("DROP TRIGGER promotions_no_update")
    connection.execute("UPDATE promotions SET who = 'eve'")
    connection.commit()
    connection.close()

    with pytest.raises(RetuneError, match=r"ledger was changed.*promotions tickets 1 was changed"):
        prune(NAME, 0, really=True, start=project)
    assert {int(version.version) for version in MlflowClient(f"sqlite:///{project}/var/mlflow.db").search_model_versions()} == {1, 2}


@pytest.mark.parametrize("missing", ["mlflow.db", "ledger.db"])
def test_unreachable_environment_prevents_pruning(project: Path, tmp_path: Path, missing: str) -> None:
    promoted(tmp_path, 2)
    (tmp_path / "production" / missing).unlink()

    for really in (False, True):
        with pytest.raises(Unavailable, match=rf"the environment production is unreachable.*nothing is deleted; .*{missing} is missing"):
            prune(NAME, 0, really=really, start=project)
    assert {int(version.version) for version in MlflowClient(f"sqlite:///{project}/var/mlflow.db").search_model_versions()} == {1, 2}
