"""Workers that share a PostgreSQL database: locks end with their process, studies are resumed, the ledger is append-only."""

import os
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from components.core.errors import BadInput, RetuneError, Unavailable
from components.core.locks import DATABASE, database_lock
from components.ledger import Ledger, Retraining
from components.mlflow_store.connection import store_lock
from components.training.tune import storage as storage_room
from components.training.tune.storage import Journals, Tables, open_studies
from tests.support.postgres import Cluster
from tests.support.project import ROOT, started

pytestmark = pytest.mark.slow
HOLD = """
    import sys, time
    from components.core.locks import database_lock
    with database_lock(sys.argv[1], "register tickets", 5):
        print("held", flush=True)
        time.sleep(600)
"""


@pytest.fixture(scope="module")
def database(postgres: Cluster) -> str:
    return postgres.url(postgres.new_database())


def test_lock_is_released_when_its_process_dies(database: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(HOLD), database]
    with started(command, cwd=ROOT, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(Unavailable, match="another worker has held 'register tickets'") as error,
            database_lock(database, "register tickets", 0.3),
        ):
            pass
        assert "sw:rd" not in str(error.value)
        with database_lock(database, "register mails", 0.3):
            pass
        os.kill(other.pid, signal.SIGKILL)
    with database_lock(database, "register tickets", 5):
        pass


def test_locks_of_a_tracking_server_are_in_the_database(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATABASE, database)
    with (
        store_lock("http://mlflow", "register tickets"),
        pytest.raises(Unavailable),
        database_lock(database, "http://mlflow register tickets", 0.2),
    ):
        pass


def test_unreachable_database_is_unavailable_without_password() -> None:
    with pytest.raises(Unavailable, match="unreachable") as error, database_lock("postgresql+psycopg://u:hidden@127.0.0.1:9/d", "x", 1):
        pass
    assert "hidden" not in str(error.value)


def test_tables_of_another_release_are_rejected(postgres: Cluster) -> None:
    database = postgres.url(postgres.new_database())
    with Tables(database).locked("one"):
        pass
    engine = sa.create_engine(database, poolclass=NullPool)
    with engine.begin() as connection:
        head = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v3.0.0.a'")
    with pytest.raises(BadInput, match="the tables belong to another release") as error, Tables(database).locked("one"):
        pass
    assert "sw:rd" not in str(error.value)

    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = %s", (head,))
    # as in docs/operations.md; at the head it does nothing
    pool = {"poolclass": NullPool}
    optuna.storages.RDBStorage(database, engine_kwargs=pool, skip_compatibility_check=True, skip_table_creation=True).upgrade()
    with Tables(database).locked("one"):
        pass


def test_study_is_resumed_by_another_worker(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_room, "_LOCK_TIMEOUT", 0.3)
    studies = Tables(database)
    with studies.locked("one") as storage:
        study = optuna.create_study(study_name="one", storage=storage, load_if_exists=True)
        study.tell(study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}), 0.5)
        with pytest.raises(Unavailable), Tables(database).locked("one"):
            pass
    with Tables(database).locked("one") as storage:
        assert [trial.value for trial in optuna.load_study(study_name="one", storage=storage).trials] == [0.5]
    assert [study.study_name for study in studies.others("two")] == ["one"]
    assert list(studies.others("one")) == []


def test_studies_are_journals_without_a_shared_database(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETUNE_VAR", str(tmp_path))
    monkeypatch.delenv(DATABASE, raising=False)
    assert isinstance(open_studies(), Journals)
    monkeypatch.setenv(DATABASE, database)
    assert isinstance(open_studies(), Tables)


def test_outcomes_of_scheduled_runs_are_append_only(database: str) -> None:
    ledger, at = Ledger(database), datetime(2026, 11, 28, 3, tzinfo=UTC)
    for outcome in ("skipped", "PASS"):
        ledger.record_retraining(Retraining(model="tickets", at=at, outcome=outcome, reason="so", basis="b", git_commit="c"))

    assert [run.outcome for run in ledger.retrainings("tickets", last=5)] == ["PASS", "skipped"]
    assert ledger.retrainings("mails") == []
    with sa.create_engine(database, poolclass=NullPool).connect() as connection, pytest.raises(sa.exc.DatabaseError, match="append-only"):
        connection.execute(sa.text("UPDATE retrainings SET outcome = 'PASS'"))


def test_ledger_of_early_release_gets_missing_tables(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger(url)
    with sa.create_engine(url, poolclass=NullPool).begin() as connection:
        connection.execute(sa.text("DROP TABLE retrainings"))
    ledger = Ledger(url)
    ledger.record_retraining(
        Retraining(model="tickets", at=datetime(2026, 11, 28, tzinfo=UTC), outcome="PASS", reason="so", basis="b", git_commit="c")
    )

    assert len(ledger.retrainings("tickets")) == 1
    with sa.create_engine(url, poolclass=NullPool).connect() as connection, pytest.raises(sa.exc.DatabaseError, match="append-only"):
        connection.execute(sa.text("DELETE FROM retrainings"))


def test_error_for_wrong_password_does_not_contain_it(postgres: Cluster) -> None:
    with pytest.raises(RetuneError) as error:
        Ledger(postgres.url(password="other-secret")).head("tickets")
    assert "other-secret" not in str(error.value)
