"""`var/mlflow.db`: made and migrated in one process under one lock, since two that first touch it corrupt it."""

import logging
import os
import sqlite3
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from components.core.errors import NotFound, RetuneError
from components.core.locks import lock
from components.core.output_dir import make_private, private
from components.core.process import tied_command
from components.mlflow_store.connection import HEAD, SQLITE, not_ours, revision_of

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
        NotThere: the file is empty, or was deleted.
        RetuneError: the file is not a database, is damaged, or cannot be migrated.
        Unavailable: it is locked by another process.
    """
    var = var.absolute()
    make_private(var)
    database = var / "mlflow.db"
    if not _at_head(database):
        with private(var), lock(var / "mlflow.db.lock", _SECONDS):
            if not _at_head(database):
                _migrate(database)
    return f"{SQLITE}{database}"


def _at_head(database: Path) -> bool:
    """Say whether this release of MLflow brought the database to its head before."""
    revision = revision_of(database)
    try:
        return _stamp(database).read_text(encoding="utf-8", errors="replace").split() == [version("mlflow"), revision]
    except FileNotFoundError:
        return False


def _stamp(database: Path) -> Path:
    return database.with_name(database.name + HEAD)


def _migrate(database: Path) -> None:
    """Bring the database to head: a new one beside its place and then by rename, an old one after a copy of it was kept."""
    before = revision_of(database)
    new = database.with_name(database.name + ".partial")
    new.unlink(missing_ok=True)
    if before is None and database.exists():
        raise not_ours(database)
    if before is None and _stamp(database).exists():
        raise NotFound(
            f"{database} is missing, and {_stamp(database).name} says that there was one: restore a copy of it; to begin a new one, "
            f"delete {_stamp(database)}"
        )
    if before is not None:
        _copy(database, database.with_name(f"{database.name}.before-{version('mlflow')}"))
    target = new if before is None else database
    done = subprocess.run(
        tied_command([sys.executable, "-c", _MIGRATE, f"{SQLITE}{target}", (database.parent / "mlartifacts").as_uri()]),
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
    _stamp(database).write_text(f"{version('mlflow')} {revision_of(database)}\n", encoding="utf-8")
    log.info("%s: schema %s, was %s", database, revision_of(database), before or "not there")


def _copy(database: Path, copy: Path) -> None:
    source, target = sqlite3.connect(database), sqlite3.connect(copy)
    try:
        source.backup(target)
    except sqlite3.DatabaseError as error:
        raise RetuneError(f"{database} could not be copied before its migration ({error}); nothing was changed") from error
    finally:
        source.close()
        target.close()
