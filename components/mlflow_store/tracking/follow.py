"""Show a running training in MLflow: new lines of history.jsonl become metrics of a RUNNING run."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient

from components.artifacts.training import read_lines
from components.mlflow_store.connection import connect, ensure_experiment, log_in_batches
from components.mlflow_store.tracking import runs
from components.mlflow_store.tracking.facts import history_metrics

log = logging.getLogger(__name__)


class LiveRun:
    """The live run of a training; `run_id` is None until the history grows."""

    def __init__(self, history: Path, uri: str, model: str) -> None:
        self.run_id: str | None = None
        self._history, self._uri, self._model = history, uri, model
        self._client: MlflowClient | None = None
        self._seen = read_lines(history)
        self._last_state = self._state()
        self._sent = 0  # number of lines of `_seen` that are in MLflow
        self._warned = False

    def poll(self) -> None:
        """Read the history and log new points; an error of MLflow must not stop the training."""
        try:
            self._poll()
        except Exception as error:
            if not self._warned:
                log.warning("the live run in MLflow is no longer updated (%s); training continues", error)
            self._warned = True

    def _state(self) -> tuple[int, int, int] | None:
        try:
            stat = self._history.stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def _poll(self) -> None:
        state = self._state()
        if state is None or state == self._last_state:
            return
        self._last_state = state
        lines, seen = read_lines(self._history), self._seen
        grew = len(lines) > len(seen) > 0 and lines[: len(seen)] == seen
        if not grew and lines != seen:  # the history belongs to another training now
            self.end("KILLED")
            self.run_id, self._sent = None, 0
        self._seen = lines
        # A file restored from DVC's cache appears complete and never grows: there is no training to follow.
        if self.run_id is None and not grew:
            return
        if self._client is None:
            self._client = connect(self._uri)
        if self.run_id is None:
            experiment = ensure_experiment(self._client, self._uri, self._model)
            self.run_id = runs.start(self._client, experiment, "train (live)", "live", {"retune.stage": "train"})
        log_in_batches(self._client, self.run_id, metrics=history_metrics(self._seen[self._sent :]))
        self._sent = len(self._seen)

    def end(self, status: str) -> None:
        """Close the live run, if there is one."""
        if self.run_id is not None and self._client is not None:
            try:
                self._client.set_terminated(self.run_id, status)
            except Exception as error:
                log.warning("the live run %s could not be closed: %s", self.run_id, error)


@contextmanager
def follow(history: Path, uri: str, model: str, seconds: float = 3.0) -> Iterator[LiveRun]:
    """Poll `history` every `seconds` while the block runs; `record` later turns the live run into the train child.

    The live run starts when the file first grows. It ends as FINISHED, as FAILED if the block raises an Exception, and as KILLED if the
    block is interrupted.
    """
    live, stop = LiveRun(history, uri, model), threading.Event()

    def watch() -> None:
        while not stop.wait(seconds):
            live.poll()

    thread = threading.Thread(target=watch, name="follow", daemon=True)
    thread.start()
    status = "KILLED"
    try:
        yield live
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        stop.set()
        thread.join(timeout=30)
        if not thread.is_alive():
            live.poll()
            live.end(status)
