"""`var/mlflow.db`: made and migrated in one process under one lock, since two that first touch it corrupt it."""

import logging
import os
import sqlite3
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from components.errors import RetuneError, Unavailable
from components.folders import make_private, private
from components.locks import hold
from components.process import tied
from components.store import SQLITE

log = logging.getLogger(__name__)

# MLflow's own command, and then its store once, so that the Default experiment is made here too and its artifacts lie beside.
_MIGRATE = """
import sys
from mlflow.cli import cli
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
uri, artifacts = sys.argv[1:]
cli(["db", "upgrade", uri], standalone_mode=False)
SqlAlchemyStore(uri, artifacts)
"""
_SECONDS = 300


def prepare_store(var: Path) -> str:
    """Make or migrate `var/mlflow.db` and return its tracking URI; a database that is at head costs milliseconds.

    Raises:
        RetuneError: the file is not a database, is damaged, or cannot be migrated.
        Unavailable: it is locked by another process.
    """
    var = var.absolute()
    make_private(var)
    database = var / "mlflow.db"
    if not _at_head(database):
        with private(var), hold(var / "mlflow.db.lock", _SECONDS):
            if not _at_head(database):
                _migrate(database)
    return f"{SQLITE}{database}"


def _at_head(database: Path) -> bool:
    """Say whether this release of MLflow brought the database to its head before."""
    revision = _revision(database)
    try:
        return _stamp(database).read_text(encoding="utf-8", errors="replace").split() == [version("mlflow"), revision]
    except FileNotFoundError:
        return False


def _stamp(database: Path) -> Path:
    return database.with_name(database.name + ".head")


def _revision(database: Path) -> str | None:
    """Return the schema revision in the file, None if there is no file or no table yet."""
    if not database.exists():
        return None
    try:
        connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=10)
        try:
            row = connection.execute("select version_num from alembic_version").fetchone()
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise Unavailable(f"{database} cannot be opened: {error}; another process may hold it, or it may not be readable") from error
    except sqlite3.DatabaseError as error:
        raise RetuneError(f"{database} is damaged ({error}): restore it from a copy, or move it away and a new one is made") from error
    return str(row[0]) if row else None


def _migrate(database: Path) -> None:
    """Bring the database to head: a new one beside its place and then by rename, an old one after a copy of it was kept."""
    before = _revision(database)
    new = database.with_name(database.name + ".partial")
    new.unlink(missing_ok=True)
    if before is None and database.exists() and database.stat().st_size:
        raise RetuneError(f"{database} is a database, but not MLflow's: move it away and a new one is made")
    if before is not None:
        _copy(database, database.with_name(f"{database.name}.before-{version('mlflow')}"))
    target = new if before is None else database
    done = subprocess.run(
        tied([sys.executable, "-c", _MIGRATE, f"{SQLITE}{target}", (database.parent / "mlartifacts").as_uri()]),
        cwd=database.parent,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise RetuneError(f"{database} could not be brought to MLflow {version('mlflow')}: {last[0]}")
    if target is new:
        os.replace(new, database)
    _stamp(database).write_text(f"{version('mlflow')} {_revision(database)}\n", encoding="utf-8")
    log.info("%s: schema %s, was %s", database, _revision(database), before or "not there")


def _copy(database: Path, copy: Path) -> None:
    source, target = sqlite3.connect(database), sqlite3.connect(copy)
    try:
        source.backup(target)
    except sqlite3.DatabaseError as error:
        raise RetuneError(f"{database} could not be copied before its migration ({error}); nothing was changed") from error
    finally:
        source.close()
        target.close()
