"""An embedded registry carried into the stack: nothing is lost on the way, and nothing is written over."""

import shutil
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from components.ledger import Ledger
from infra.local.layout import MIGRATE_TO, Stack
from tests.stack.conftest import Migration, asked, hashes, say
from tests.support.project import retune


def test_a_registry_is_carried_with_nothing_lost(migrated: Migration, project: Path) -> None:
    assert migrated.done == migrated.planned | {"done": True} == migrated.again
    assert (migrated.done["versions"], migrated.done["studies"]) == (1, 1)
    assert migrated.done["ledger"] > 0
    assert migrated.done["artifacts"] > 20
    now = hashes(project / "var")
    assert "mlflow.db" in migrated.files
    assert {name: now.get(name) for name in ("mlflow.db", "ledger.db")} == {
        name: migrated.files[name] for name in ("mlflow.db", "ledger.db")
    }
    kept = {name: digest for name, digest in migrated.files.items() if name.startswith(("mlartifacts/", "optuna/"))}
    assert kept.items() <= now.items()


def test_the_project_says_the_same_and_finds_everything_done(migrated: Migration, project: Path) -> None:
    assert asked(project) == migrated.answers
    with_its_own = project / "var/mlartifacts"
    with_its_own.rename(project / "var/mlartifacts.earlier")  # nothing is read from here any more
    try:
        assert '"up_to_date": true' in say(project, "run", "--inline", "--json")
        assert "billing" in say(project, "predict", "invoice refund card money")
    finally:
        with_its_own.with_name("mlartifacts.earlier").rename(with_its_own)


def test_what_is_there_is_never_written_over(migrated: Migration, project: Path, stack: Stack, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(project, other, ignore=shutil.ignore_patterns("cache", "prefect", "mlartifacts", "runs", ".git"))
    with sqlite3.connect(other / "var/mlflow.db") as connection:
        connection.execute("DELETE FROM model_version_tags")

    done = retune(other, "migrate", **{MIGRATE_TO: stack.database("mlflow")})

    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert stack.secrets["MLFLOW_DATABASE_PASSWORD"] not in done.stderr


def test_the_ledger_refuses_changes_after_it_was_carried(migrated: Migration, stack: Stack) -> None:
    assert Ledger(stack.database("retune")).entries("tickets")[0].version == 1
    engine = sa.create_engine(stack.database("retune"))
    with pytest.raises(sa.exc.DatabaseError, match="append-only"), engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM promotions"))
    engine.dispose()
