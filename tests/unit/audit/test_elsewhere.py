"""What production has is not deleted here, where it was made."""

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
from flows.audit.prune import PrunePlan, look, prune
from flows.audit.retention import object_path
from tests.support.finished import new_store

pytestmark = pytest.mark.slow

NAME = "tickets"
HASHES = {f"k{digit}": digit * 32 for digit in "123"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with candidates 1 and 2, and the data of three; production has the candidates 9, 2 and 3, and is named in the settings."""
    project = tmp_path / "project"
    for folder in ("components", "flows"):
        (project / folder).mkdir(parents=True)
    (project / "dvc.yaml").touch()
    register(new_store(project / "var"), "k1", "k2")
    Ledger(f"sqlite:///{project}/var/ledger.db")
    for digest in HASHES.values():
        path = object_path(project / ".dvc/cache", digest)
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
        made = json.dumps({"data/raw": HASHES.get(key, "")})
        client.create_model_version(NAME, "file:///nowhere", run, tags={KEY: key, COMPLETE: "true", "retune.dvc_lock": made})


def name_production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    place = {"mlflow": f"sqlite:///{tmp_path}/production/mlflow.db", "ledger": f"sqlite:///{tmp_path}/production/ledger.db"} | more
    monkeypatch.setenv("RETUNE_ENVIRONMENTS", json.dumps({"production": place}))


def promoted(tmp_path: Path, *numbers: int) -> None:
    """Make these versions of production champion, one after another."""
    keys = {1: "k9", 2: "k2", 3: "k3"}
    ledger = Ledger(f"sqlite:///{tmp_path}/production/ledger.db")
    for number in numbers:
        ledger.append(NAME, expected="any", action="promoted", version=number, key=keys[number], who="ada", why="so")
    MlflowClient(f"sqlite:///{tmp_path}/production/mlflow.db").set_registered_model_alias(NAME, CHAMPION, str(numbers[-1]))


def names(plan: PrunePlan, kind: str) -> set[str]:
    return {thing.name for thing in plan.doomed if thing.kind == kind}


def test_the_champion_of_production_stays_where_it_was_made_with_its_data(project: Path, tmp_path: Path) -> None:
    promoted(tmp_path, 2)
    plan = look(NAME, 0, 7, project)

    assert plan.kept == {NAME: {2: "is champion in production"}}
    assert (names(plan, "version"), names(plan, "DVC object")) == ({"tickets 1"}, {HASHES["k1"]})


def test_an_earlier_champion_of_production_stays_also_when_production_deleted_it(project: Path, tmp_path: Path) -> None:
    promoted(tmp_path, 2, 1)
    MlflowClient(f"sqlite:///{tmp_path}/production/mlflow.db").delete_model_version(NAME, "2")

    assert look(NAME, 0, 7, project).kept == {NAME: {2: "in the ledger in production"}}


def test_the_data_of_a_champion_that_this_registry_has_no_more_stay(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promoted(tmp_path, 3)
    monkeypatch.setitem(HASHES, "k1", HASHES["k3"])
    MlflowClient(f"sqlite:///{project}/var/mlflow.db").set_model_version_tag(
        NAME, "1", "retune.dvc_lock", json.dumps({"data/raw": HASHES["k3"]})
    )
    plan = look(NAME, 0, 7, project)

    assert (names(plan, "version"), names(plan, "DVC object")) == ({"tickets 1", "tickets 2"}, {HASHES["k2"]})


def test_what_is_in_production_here_too_stays_for_that_reason(project: Path, tmp_path: Path) -> None:
    promoted(tmp_path, 2)
    MlflowClient(f"sqlite:///{project}/var/mlflow.db").set_registered_model_alias(NAME, "challenger", "2")

    assert look(NAME, 2, 7, project).kept == {NAME: {1: "one of the newest 2", 2: "is challenger"}}


@pytest.mark.parametrize("where", ["project/var", "production"])
def test_a_changed_ledger_deletes_nothing(project: Path, tmp_path: Path, where: str) -> None:
    promoted(tmp_path, 2)
    Ledger(f"sqlite:///{project}/var/ledger.db").append(NAME, expected=None, action="promoted", version=1, key="k1", who="ada", why="so")
    connection = sqlite3.connect(tmp_path / where / "ledger.db")
    connection.execute("DROP TRIGGER promotions_no_update")
    connection.execute("UPDATE promotions SET who = 'eve'")
    connection.commit()
    connection.close()

    with pytest.raises(RetuneError, match=r"ledger is not what was written.*promotions tickets 1 was changed"):
        prune(NAME, 0, really=True, start=project)
    assert {int(version.version) for version in MlflowClient(f"sqlite:///{project}/var/mlflow.db").search_model_versions()} == {1, 2}


@pytest.mark.parametrize("gone", ["mlflow.db", "ledger.db"])
def test_an_environment_that_cannot_be_reached_stops_everything(project: Path, tmp_path: Path, gone: str) -> None:
    promoted(tmp_path, 2)
    (tmp_path / "production" / gone).unlink()

    for really in (False, True):
        with pytest.raises(Unavailable, match=rf"the environment production cannot be reached.*nothing is deleted; .*{gone} is missing"):
            prune(NAME, 0, really=really, start=project)
    assert {int(version.version) for version in MlflowClient(f"sqlite:///{project}/var/mlflow.db").search_model_versions()} == {1, 2}
