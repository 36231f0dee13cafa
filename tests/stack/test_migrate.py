"""Migration of an embedded registry into the stack: no loss, and no existing data is overwritten."""

import shutil
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from components.ledger import Ledger
from infra.local.layout import MIGRATE_TO, Stack
from tests.support.project import retune
from tests.support.stack_services import Migration, champion_reports, file_digests, output_of


def test_registry_is_migrated_without_loss(migrated: Migration, project: Path) -> None:
    assert migrated.done == migrated.planned | {"done": True} == migrated.again
    assert (migrated.done["versions"], migrated.done["studies"]) == (1, 1)
    assert migrated.done["ledger"] > 0
    assert migrated.done["artifacts"] > 20
    after = file_digests(project / "var")
    assert "mlflow.db" in migrated.files
    assert {name: after.get(name) for name in ("mlflow.db", "ledger.db")} == {
        name: migrated.files[name] for name in ("mlflow.db", "ledger.db")
    }
    kept = {name: digest for name, digest in migrated.files.items() if name.startswith(("mlartifacts/", "optuna/"))}
    assert kept.items() <= after.items()


def test_migrated_project_reports_the_same_and_is_up_to_date(migrated: Migration, project: Path) -> None:
    assert champion_reports(project) == migrated.reports
    artifacts = project / "var/mlartifacts"
    artifacts.rename(project / "var/mlartifacts.earlier")  # no longer read
    try:
        assert '"up_to_date": true' in output_of(project, "run", "--inline", "--json")
        assert "billing" in output_of(project, "predict", "invoice refund card money")
    finally:
        artifacts.with_name("mlartifacts.earlier").rename(artifacts)


def test_existing_data_is_not_overwritten(migrated: Migration, project: Path, stack: Stack, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(project, other, ignore=shutil.ignore_patterns("cache", "prefect", "mlartifacts", "runs", ".git"))
    with sqlite3.connect(other / "var/mlflow.db") as connection:
        connection.execute("DELETE FROM model_version_tags")

    done = retune(other, "migrate", **{MIGRATE_TO: stack.database("mlflow")})

    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert stack.secrets["MLFLOW_DATABASE_PASSWORD"] not in done.stderr


def test_migrated_ledger_is_append_only(migrated: Migration, stack: Stack) -> None:
    assert Ledger(stack.database("retune")).entries("tickets")[0].version == 1
    engine = sa.create_engine(stack.database("retune"))
    with pytest.raises(sa.exc.DatabaseError, match="append-only"), engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM promotions"))
    engine.dispose()
