"""Where studies are kept: a journal each in `var/optuna`, or the database that workers share.

One process at a time holds a study, so what a killed one left behind can be mended without asking.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.pool import NullPool

from components.core.atomic import write_bytes
from components.core.errors import BadInput
from components.core.locks import database_lock, lock, shared_database
from components.training.trainer.state_dir import state_folder

log = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds


class Studies(Protocol):
    """Where studies are kept, by their names."""

    def hold(self, name: str) -> AbstractContextManager[BaseStorage]:
        """Hold a study for the block, for this process alone, and give its storage, mended.

        Raises:
            Unavailable: another process holds it.
            BadInput: the tables are of another release.
        """

    def others(self, name: str) -> Iterator[optuna.Study]:
        """Yield the other studies, the first name first; one that cannot be read is passed over."""


def kept() -> Studies:
    """Return where studies are kept: the shared database where there is one, else `var/optuna`."""
    database = shared_database()
    return Tables(database) if database else Journals(state_folder("optuna"))


class Journals:
    """A file a study: twelve times as fast as SQLite, and whole again once a torn last line is cut off."""

    def __init__(self, folder: Path) -> None:
        """In `folder`, which is made."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def hold(self, name: str) -> Iterator[BaseStorage]:
        """Hold the journal; Optuna's own lock, which a killed process leaves behind, is removed."""
        path = self._path(name)
        busy = f"another process is searching in {path}; wait for it or end it, then run again"
        with lock(self._folder / f"{name}.held", _PATIENCE, busy=busy):
            for stale in self._folder.glob(path.name + ".lock*"):
                stale.unlink(missing_ok=True)
            repair(path)
            yield JournalStorage(JournalFileBackend(str(path)))

    def others(self, name: str) -> Iterator[optuna.Study]:
        """Yield the studies of the other journals."""
        for journal in sorted(self._folder.glob("*.log")):
            if journal == self._path(name):
                continue
            try:
                yield optuna.load_study(study_name=journal.stem, storage=JournalStorage(JournalFileBackend(str(journal))))
            except (KeyError, ValueError, OSError) as error:
                log.warning("%s cannot be read and is passed over: %s", journal, error)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.log"


class Tables:
    """Optuna's tables in the shared database; its heartbeats are not needed, since who holds a study is known."""

    def __init__(self, database: str) -> None:
        """In the database of this address."""
        self._database = database

    @contextmanager
    def hold(self, name: str) -> Iterator[BaseStorage]:
        """Hold the study by a lock that the database lets go of when this process is gone."""
        with database_lock(self._database, f"study {name}", _PATIENCE), self._opened() as storage:
            yield storage

    def others(self, name: str) -> Iterator[optuna.Study]:
        """Yield the other studies of the database."""
        with self._opened() as storage:
            for other in sorted(optuna.get_all_study_names(storage)):
                if other != name:
                    yield optuna.load_study(study_name=other, storage=storage)

    @contextmanager
    def _opened(self) -> Iterator[RDBStorage]:
        with database_lock(self._database, "optuna's tables", 60):  # two that make them at once would collide
            try:
                storage = RDBStorage(self._database, engine_kwargs={"poolclass": NullPool})
            except RuntimeError as error:  # Optuna's only word for it; its own address would show the password
                raise BadInput(
                    "RETUNE_DATABASE: Optuna's tables are of another release of Optuna; docs/operations.md, Upgrade, has the command"
                ) from error
        try:
            yield storage
        finally:
            storage.remove_session()


def repair(path: Path) -> None:
    """Cut off what a kill or a full disk left of the last entry, which would make the whole journal unreadable.

    Raises:
        BadInput: it is a folder, or holds something else than a journal.
    """
    if not path.exists():
        return
    if path.is_dir():
        raise BadInput(f"{path} is a folder, expected a journal of Optuna's: move it away")
    whole = bytearray()
    content = path.read_bytes()
    for line in content.splitlines(keepends=True):
        if not _is_entry(line):
            break
        whole += line
    if len(whole) == len(content):
        return
    if not whole and not content.startswith(b"{"):
        raise BadInput(f"{path} is not a journal of Optuna's, so nothing is cut off: restore a copy, or delete it to begin the search anew")
    log.warning("%s ends in a torn entry; %d bytes are cut off", path, len(content) - len(whole))
    write_bytes(path, bytes(whole))


def _is_entry(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False
