"""One run a model at a time, and one in a folder, whoever started it: a person, a schedule, another machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.core.locks import database_lock, lock, shared_database
from components.core.output_dir import make_private

RUNS = "var/runs"
LOCK = "var/run.lock"  # in a workspace: the one run that works there
SECONDS = 5.0  # that a run waits for one that is about to end


@contextmanager
def run_lock(project: Path, name: str) -> Iterator[None]:
    """Hold the model `name` among all runs of it, on this machine or on all that share a database.

    Raises:
        Busy: another run of the model is at work.
        Unavailable: the database is out of reach.
    """
    shared = shared_database()
    with database_lock(shared, f"retrain {name}", SECONDS) if shared else lock(project / RUNS / f"{name}.lock", SECONDS):
        yield


@contextmanager
def folder_lock(root: Path) -> Iterator[None]:
    """Hold the workspace at `root` for one run; the kernel drops the lock however the run ends.

    Raises:
        Unavailable: another run works in it.
    """
    path = root / LOCK
    make_private(path.parent)
    with lock(path, busy=f"another run is working in {root} (it holds {path}); wait for it or end it"):
        yield
