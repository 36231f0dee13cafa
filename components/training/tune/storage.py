"""Storage of Optuna studies: one journal per study in `var/optuna`, or the shared database.

Only one process at a time uses a study, so the leftovers of a killed process can be repaired safely.
"""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.pool import NullPool

from components.core.atomic import write_bytes
from components.core.errors import BadInput, RetuneError
from components.core.locks import database_lock, lock, shared_database
from components.core.temporary import temporary
from components.training.trainer.state_dir import state_folder

log = logging.getLogger(__name__)

_LOCK_TIMEOUT = 10.0  # seconds


class Journals:
    """One file per study: twelve times as fast as SQLite, and repaired by cutting off a torn last line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self, name: str) -> Iterator[BaseStorage]:
        """Lock the journal and yield its repaired storage; Optuna's own lock, which a killed process leaves behind, is removed.

        Raises:
            Unavailable: another process holds the lock.
        """
        path = self._path(name)
        busy = f"another process is searching in {path}; wait for it or stop it, then run again"
        with lock(self._folder / f"{name}.held", _LOCK_TIMEOUT, busy=busy):
            for stale in self._folder.glob(path.name + ".lock*"):
                stale.unlink(missing_ok=True)
            repair(path)
            yield JournalStorage(JournalFileBackend(str(path)))

    def others(self, name: str) -> Iterator[optuna.Study]:
        """Yield the studies of the other journals, sorted by name; unreadable ones are skipped."""
        for journal in sorted(self._folder.glob("*.log")):
            if journal == self._path(name):
                continue
            try:
                yield optuna.load_study(study_name=journal.stem, storage=JournalStorage(JournalFileBackend(str(journal))))
            except (KeyError, ValueError, OSError) as error:
                log.warning("skipping %s, which cannot be read: %s", journal, error)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.log"


class Tables:
    """Optuna's tables in the shared database; its heartbeats are not needed, because a lock shows which studies are in use."""

    def __init__(self, database: str) -> None:
        self._database = database

    @contextmanager
    def locked(self, name: str) -> Iterator[BaseStorage]:
        """Lock the study, with a lock that the database releases when this process ends, and yield its storage.

        Raises:
            Unavailable: another process holds the lock.
            BadInput: the tables belong to another release of Optuna.
        """
        with database_lock(self._database, f"study {name}", _LOCK_TIMEOUT), self._opened() as storage:
            yield storage

    def others(self, name: str) -> Iterator[optuna.Study]:
        """Yield the other studies of the database, sorted by name."""
        with self._opened() as storage:
            for other_name in sorted(optuna.get_all_study_names(storage)):
                if other_name != name:
                    yield optuna.load_study(study_name=other_name, storage=storage)

    @contextmanager
    def _opened(self) -> Iterator[RDBStorage]:
        with database_lock(self._database, "optuna's tables", 60):  # creating them twice at once would fail
            try:
                storage = RDBStorage(self._database, engine_kwargs={"poolclass": NullPool})
            except RuntimeError as error:  # Optuna's message would show the URL with the password
                raise BadInput(
                    "RETUNE_DATABASE: the tables belong to another release of Optuna; docs/operations.md, Upgrade, has the command"
                ) from error
        try:
            yield storage
        finally:
            storage.remove_session()


Studies = Journals | Tables


def open_studies() -> Studies:
    """Return the shared database if one is set, else the journals in `var/optuna`."""
    database = shared_database()
    return Tables(database) if database else Journals(state_folder("optuna"))


def repair(path: Path) -> None:
    """Cut off an incomplete last entry, left by a kill or a full disk, which would make the whole journal unreadable.

    Raises:
        BadInput: `path` is a folder, or not a journal.
    """
    if not path.exists():
        return
    if path.is_dir():
        raise BadInput(f"{path} is a folder, expected an Optuna journal; move it away")
    complete = bytearray()
    content = path.read_bytes()
    for line in content.splitlines(keepends=True):
        if not _is_entry(line):
            break
        complete += line
    if len(complete) == len(content):
        return
    if not complete and not content.startswith(b"{"):
        raise BadInput(f"{path} is not an Optuna journal, so it is not repaired; restore a copy, or delete it to restart the search")
    log.warning("%s ends in an incomplete entry; cutting off %d bytes", path, len(content) - len(complete))
    write_bytes(path, bytes(complete))


def _is_entry(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def copy_studies(folder: Path, database: str) -> None:
    """Copy each study of the journals in `folder` into the database unless it already has it; the journals are not changed.

    An incomplete copy of a killed migration is replaced; a study that has more trials in the database is kept.

    Raises:
        RetuneError: a study cannot be read, or its copy differs.
        Unavailable: a search uses one of the studies, or the database does not answer.
    """
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with temporary() as aside:
            for journal in sorted(folder.glob("*.log")):
                shutil.copy(journal, aside)
                with Journals(aside).locked(journal.stem) as source, Tables(database).locked(journal.stem) as target:
                    _copy(journal.stem, source, target)
    except (KeyError, ValueError) as error:
        raise RetuneError(f"a study in {folder} cannot be copied: {error}") from None
    finally:
        optuna.logging.set_verbosity(before)


def _copy(name: str, source: BaseStorage, target: BaseStorage) -> None:
    expected = optuna.load_study(study_name=name, storage=source).trials
    if name in optuna.get_all_study_names(target):
        if len(optuna.load_study(study_name=name, storage=target).trials) >= len(expected):
            return
        optuna.delete_study(study_name=name, storage=target)
    optuna.copy_study(from_study_name=name, from_storage=source, to_storage=target)
    copied = optuna.load_study(study_name=name, storage=target).trials
    versions = [[(trial.number, trial.state, trial.params, trial.values) for trial in trials] for trials in (expected, copied)]
    if versions[0] != versions[1]:
        raise RetuneError(f"the copy of study {name} in the database differs from its journal; run again to replace it")
