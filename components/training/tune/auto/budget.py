"""The budget of a search: wall-clock seconds over all processes, and the progress that a reader outside can follow."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.artifacts.tuning_result import TuneProgress
from components.core.errors import NotFound
from components.training.trainer.state_dir import state_folder

_INTERVAL = 1.0  # seconds between two writes


def progress_folder(identity: str) -> Path:
    """Return the folder with the progress of the search `identity`."""
    return state_folder("progress") / identity


class Budget:
    """Seconds that a search may use; those of earlier processes count, also of killed ones."""

    def __init__(self, identity: str, minutes: float, metric: str) -> None:
        """Continue the count in the folder of `identity`, which is created."""
        self._folder = progress_folder(identity)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._before = _spent(self._folder)
        self._started = time.monotonic()
        self.seconds = minutes * 60
        self._state: dict[str, Any] = {
            "metric": metric, "minutes": minutes, "phase": "", "running": "", "step": 0, "steps": 0,
            "tried": 0, "best_name": "", "best_score": None, "ended": False,
        }  # fmt: skip

    def spent(self) -> float:
        """Return the seconds used so far."""
        return self._before + time.monotonic() - self._started

    def left(self) -> float:
        """Return the seconds that are left; below 0 after the end."""
        return self.seconds - self.spent()

    def report_progress(self, **state: Any) -> None:
        """Change fields of the progress: phase, running, step, steps, tried, best_name, best_score."""
        self._state |= state

    @contextmanager
    def running(self) -> Iterator["Budget"]:
        """Write the progress every second while the block runs, and once at its end."""
        stop = threading.Event()

        def write() -> None:
            while not stop.wait(_INTERVAL):
                self._write()

        writer = threading.Thread(target=write, name="progress", daemon=True)
        self._write()
        writer.start()
        try:
            yield self
            self._state["ended"] = True
        finally:
            stop.set()
            writer.join()
            self._write()

    def _write(self) -> None:
        TuneProgress(seconds_left=round(self.left(), 2), spent=round(self.spent(), 2), **self._state).write(self._folder)


def _spent(folder: Path) -> float:
    try:
        return TuneProgress.read(folder).spent
    except NotFound:
        return 0.0
