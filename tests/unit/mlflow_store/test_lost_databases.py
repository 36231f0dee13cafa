"""A database that lost its content is refused as a deleted one is, and never taken for a new one."""

import logging
import shutil
import sqlite3
from pathlib import Path

import pytest

from components.core.errors import BadInput, NotFound, RetuneError
from components.ledger import Ledger
from components.mlflow_store.connection import connect, revision_of
from components.mlflow_store.tracking import prepare_store
from components.training.tune.storage import repair
from flows.audit.history import history
from flows.migrate.migrate import copy_ledger
from flows.orchestrator.server import check_database
from tests.support.audit_models import model_of, promoted, version
from tests.support.finished import new_store


def empty(path: Path) -> None:
    path.write_bytes(b"")


def without_tables(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (a)")
        connection.execute("DROP TABLE mine")
    connection.close()


def of_another_program(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()


def no_database(path: Path) -> None:
    path.write_bytes(b"no database at all" * 500)


def folder(path: Path) -> None:
    path.mkdir()


def truncated(path: Path) -> None:
    content = path.with_name("whole.db").read_bytes()
    path.write_bytes(content[: len(content) // 3])


LOST = {
    empty: "is empty (0 bytes), its content was lost",
    without_tables: "is a database, but not",
    of_another_program: "is a database, but not",
    no_database: "",
    folder: "is a folder, expected",
    truncated: "",
}


@pytest.mark.parametrize("lose", LOST)
def test_a_ledger_that_lost_its_content_is_refused(tmp_path: Path, lose: object) -> None:
    promoted(tmp_path, 1)
    (tmp_path / "var/ledger.db").rename(tmp_path / "var/whole.db")
    lose(tmp_path / "var/ledger.db")  # type: ignore[operator]

    with pytest.raises(RetuneError, match="ledger") as error:
        history(model_of(tmp_path, version(1)))
    assert LOST[lose] in str(error.value)  # type: ignore[index]
    assert "restore a copy" in str(error.value)


@pytest.mark.parametrize("lose", [empty, without_tables, folder])
def test_no_migration_carries_a_lost_ledger(tmp_path: Path, lose: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.migrate.tables.open_target", lambda *_: sqlite_engine(tmp_path / "target.db"))
    lose(tmp_path / "ledger.db")  # type: ignore[operator]
    with pytest.raises(RetuneError):
        copy_ledger(tmp_path / "ledger.db", "", really=False)


def sqlite_engine(path: Path) -> object:
    import sqlalchemy as sa
    from sqlalchemy.pool import NullPool

    return sa.create_engine(f"sqlite:///{path}", poolclass=NullPool)


@pytest.mark.parametrize("lose", [one for one in LOST if one is not truncated])
def test_an_mlflow_database_that_lost_its_content_is_refused(tmp_path: Path, lose: object) -> None:
    lose(tmp_path / "mlflow.db")  # type: ignore[operator]
    for ask in (lambda: prepare_store(tmp_path), lambda: connect(f"sqlite:///{tmp_path}/mlflow.db")):
        with pytest.raises(RetuneError, match=r"mlflow\.db") as error:
            ask()
        assert LOST[lose] in str(error.value)  # type: ignore[index]
        assert "restore a copy" in str(error.value)


def test_an_mlflow_database_that_was_deleted_is_refused(tmp_path: Path) -> None:
    new_store(tmp_path)
    (tmp_path / "mlflow.db").unlink()
    with pytest.raises(NotFound, match=r"mlflow\.db is missing, and mlflow\.db\.head says that there was one"):
        prepare_store(tmp_path)


def test_a_promoted_version_without_a_ledger_entry_is_told(tmp_path: Path) -> None:
    Ledger(f"sqlite:///{tmp_path}/var/ledger.db")
    with pytest.raises(NotFound, match="has no entry for tickets, and version 1 of tickets was promoted, by its tags"):
        history(model_of(tmp_path, version(1, retune__promoted="2026-11-30")))


def test_a_new_ledger_is_whole_or_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("components.ledger.tables.guard", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Ledger(f"sqlite:///{tmp_path}/ledger.db")
    assert not (tmp_path / "ledger.db").exists()
    assert Ledger(f"sqlite:///{tmp_path}/ledger.db").chain().faults == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger.db", "ledger.db.lock"]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("lose", [no_database, of_another_program])
def test_a_file_that_is_no_journal_is_not_cut(tmp_path: Path, lose: object) -> None:
    lose(tmp_path / "study.log")  # type: ignore[operator]
    before = (tmp_path / "study.log").read_bytes()
    with pytest.raises(BadInput, match="is not an Optuna journal"):
        repair(tmp_path / "study.log")
    assert (tmp_path / "study.log").read_bytes() == before


@pytest.mark.parametrize("lose", [no_database, folder])
def test_a_prefect_database_that_is_none_is_refused(tmp_path: Path, lose: object) -> None:
    lose(tmp_path / "prefect.db")  # type: ignore[operator]
    with pytest.raises(RetuneError, match=r"prefect\.db .*move it away"):
        check_database(tmp_path)


def test_an_empty_prefect_database_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_database(tmp_path)
    empty(tmp_path / "prefect.db")
    with caplog.at_level(logging.WARNING):
        check_database(tmp_path)
    assert "prefect.db is empty" in caplog.text


def test_a_half_written_database_of_a_killed_process_is_rolled_back(tmp_path: Path) -> None:
    left, copy = tmp_path / "left.db", tmp_path / "mlflow.db"
    with sqlite3.connect(left) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num)")
        connection.execute("INSERT INTO alembic_version VALUES ('a1')")
    connection.execute("PRAGMA cache_size = 1")  # so that pages are written before the end of the transaction
    connection.executemany("INSERT INTO alembic_version VALUES (?)", [("x" * 4_000,)] * 100)
    for suffix in ("", "-journal"):
        shutil.copyfile(f"{left}{suffix}", f"{copy}{suffix}")
    connection.close()

    assert revision_of(copy) == "a1"
