"""Locks: one run per model, and one per workspace, across users, schedules and hosts."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.core.locks import database_lock, lock, shared_database
from components.core.output_dir import make_private

RUNS = "var/runs"
LOCK = "var/run.lock"  # in a workspace
SECONDS = 5.0  # to wait for a run that is about to end


@contextmanager
def run_lock(project: Path, name: str) -> Iterator[None]:
    """Lock the model `name`, on this host or on all hosts that share a database.

    Raises:
        LockTimeout: another run of the model is active.
        Unavailable: the database is unreachable.
    """
    shared = shared_database()
    with database_lock(shared, f"retrain {name}", SECONDS) if shared else lock(project / RUNS / f"{name}.lock", SECONDS):
        yield


@contextmanager
def folder_lock(root: Path) -> Iterator[None]:
    """Lock the workspace at `root` until the block or the process ends; raise Unavailable if another run uses it."""
    path = root / LOCK
    make_private(path.parent)
    with lock(path, busy=f"another run uses {root} (it holds {path}); wait for it or stop it"):
        yield
