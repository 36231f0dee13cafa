"""Live progress of a run with an automatic search: a display on a terminal, else a line per change."""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from components.artifacts.tuning_result import TuneProgress
from components.training.trainer.state_dir import state_folder

SECONDS = 1.0  # between two readings of the progress


class SearchProgress:
    """The progress of the search in a workspace, written to one folder per search; records of earlier runs are ignored."""

    def __init__(self, root: Path) -> None:
        self.started = time.time()
        self._folder = root / state_folder("progress")

    def read(self) -> TuneProgress | None:
        """Return the current progress, with the time since its last change taken off; None before the search and after it."""
        times = {file.parent: file.stat().st_mtime for file in self._folder.glob(f"*/{TuneProgress.FILE}")}
        folder, written = max(times.items(), key=lambda item: item[1], default=(self._folder, 0.0))
        progress = TuneProgress.find(folder) if written >= self.started else None
        if progress is None or progress.ended:
            return None
        left = max(progress.seconds_left - max(time.time() - written, 0.0), 0.0)
        return progress.model_copy(update={"seconds_left": left})


@contextmanager
def live_progress(root: Path, console: Console) -> Iterator[None]:
    """Show the progress of the search in the workspace `root` while the block runs; log lines appear above the display."""
    progress = SearchProgress(root)
    if not console.is_terminal:
        with _lines(progress, console):
            yield
        return
    with (
        Live(
            get_renderable=lambda: _display(progress),
            console=console,
            refresh_per_second=2,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),
        ),
        _logging_to_stderr(),
    ):
        yield


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Send log lines to the current sys.stderr, which the display has replaced."""
    handlers = [handler for handler in logging.getLogger().handlers if type(handler) is logging.StreamHandler]
    before = [handler.setStream(sys.stderr) for handler in handlers]
    try:
        yield
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            if stream is not None:
                handler.setStream(stream)


def _display(progress: SearchProgress) -> Table:
    now, lines = progress.read(), Table.grid()
    if now is None:
        lines.add_row(Text(f"running the pipeline, {_clock(time.time() - progress.started)}", style="dim"))
        return lines
    budget = now.minutes * 60
    bar = ProgressBar(total=budget, completed=budget - now.seconds_left, width=40)
    for line in (Text(headline(now), style="bold"), bar, Text(running(now)), Text(best(now))):
        lines.add_row(line)
    return lines


def headline(progress: TuneProgress) -> str:
    """Return the remaining time and the phase, e.g. `searching: 7:32 of 15:00 minutes left, refining`."""
    return f"searching: {_clock(progress.seconds_left)} of {_clock(progress.minutes * 60)} minutes left, {progress.phase or 'starting'}"


def running(progress: TuneProgress) -> str:
    """Return the name of the running candidate, with its step if it trains."""
    if not progress.running:
        return "running: –"
    return f"running: {progress.running}" + (f", step {progress.step:,} of {progress.steps:,}" if progress.steps else "")


def best(progress: TuneProgress) -> str:
    """Return the best candidate so far and the number of candidates that ended."""
    if progress.best_score is None:
        return "best so far: –"
    return f"best so far: {progress.metric} {progress.best_score:.3f}, {progress.best_name} ({progress.tried} tried)"


@contextmanager
def _lines(progress: SearchProgress, console: Console) -> Iterator[None]:
    """Print a line whenever the phase, the running candidate or the number of tried candidates changes."""
    stop = threading.Event()

    def watch() -> None:
        last = None
        while not stop.wait(SECONDS):
            if (now := progress.read()) and (state := (now.phase, now.running, now.tried)) != last:
                last = state
                console.print(f"{headline(now)}; running {now.running or '–'}; {best(now)}", markup=False)

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
