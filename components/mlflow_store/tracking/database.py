"""Create and migrate `var/mlflow.db`, one process at a time: two that create it at once corrupt it."""

import logging
import sqlite3
import subprocess
import sys
from contextlib import closing, nullcontext
from importlib.metadata import version
from pathlib import Path

from components.core.atomic import replacing
from components.core.errors import NotFound, RetuneError
from components.core.locks import lock
from components.core.output_dir import make_private, private
from components.core.process import tied_command
from components.mlflow_store.connection import HEAD, SQLITE, foreign_database_error, revision_of

log = logging.getLogger(__name__)

# Runs MLflow's own migration, then opens the store once, which creates the Default experiment with its artifacts next to the database.
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
    """Create or migrate `var/mlflow.db` and return its tracking URI; costs milliseconds if the database is at head.

    Raises:
        NotFound: the file is empty, or was deleted.
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
    """Return whether this release of MLflow has already migrated the database."""
    revision = revision_of(database)
    try:
        return _stamp(database).read_text(encoding="utf-8", errors="replace").split() == [version("mlflow"), revision]
    except FileNotFoundError:
        return False


def _stamp(database: Path) -> Path:
    return database.with_name(database.name + HEAD)


def _migrate(database: Path) -> None:
    """Migrate the database to head: create a new one under a temporary name, or migrate an existing one after a backup."""
    before = revision_of(database)
    if before is None and database.exists():
        raise foreign_database_error(database)
    if before is None and _stamp(database).exists():
        raise NotFound(
            f"{database} is missing, but {_stamp(database).name} shows that it existed: restore a copy; to start a new one, "
            f"delete {_stamp(database)}"
        )
    if before is not None:
        backup = database.with_name(f"{database.name}.before-{version('mlflow')}")
        try:
            with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(backup)) as target:
                source.backup(target)
        except sqlite3.DatabaseError as error:
            raise RetuneError(f"{database} could not be backed up before its migration ({error}); nothing was changed") from error
    with replacing(database, locked=False) if before is None else nullcontext(database) as migrated:
        done = subprocess.run(
            tied_command([sys.executable, "-c", _MIGRATE, f"{SQLITE}{migrated}", (database.parent / "mlartifacts").as_uri()]),
            cwd=database.parent,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise RetuneError(f"{database} could not be migrated to MLflow {version('mlflow')}: {last[0]}")
    _stamp(database).write_text(f"{version('mlflow')} {revision_of(database)}\n", encoding="utf-8")
    log.info("%s: schema %s (before: %s)", database, revision_of(database), before or "none")
