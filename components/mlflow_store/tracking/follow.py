"""A long training, watched live: new lines of history.jsonl become metrics of a RUNNING run while the file grows."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric

from components.mlflow_store.connection import connect, experiment, key, log_all, milliseconds
from components.mlflow_store.tracking import runs
from components.mlflow_store.tracking.facts import read_lines, read_points

log = logging.getLogger(__name__)


class Followed:
    """What a followed training became: `run_id` is None while nothing has grown."""

    def __init__(self, history: Path, uri: str, model: str) -> None:
        self.run_id: str | None = None
        self._history, self._uri, self._model = history, uri, model
        self._client: MlflowClient | None = None
        self._seen = read_lines(history)
        self._old = self._state()
        self._fed = 0  # lines of `_seen` that are in MLflow
        self._told = False

    def look(self) -> None:
        """Read the history once and log what is new; MLflow being away must not end a training."""
        try:
            self._look()
        except Exception as error:
            if not self._told:
                log.warning("the live view in MLflow has stopped (%s); training goes on", error)
            self._told = True

    def _state(self) -> tuple[int, int, int] | None:
        try:
            stat = self._history.stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def _look(self) -> None:
        state = self._state()
        if state is None or state == self._old:
            return
        self._old = state
        lines, seen = read_lines(self._history), self._seen
        grew = len(lines) > len(seen) > 0 and lines[: len(seen)] == seen
        if not grew and lines != seen:
            self._begin_anew()
        self._seen = lines
        # A file that comes whole out of DVC's cache never grows: it is no training to be watched.
        if self.run_id is None and not grew:
            return
        self._feed()

    def _begin_anew(self) -> None:
        """Another training has taken the place of the one that was followed."""
        self.end("KILLED")
        self.run_id, self._fed = None, 0

    def _feed(self) -> None:
        if self._client is None:
            self._client = connect(self._uri)
        if self.run_id is None:
            place = experiment(self._client, self._uri, self._model)
            self.run_id = runs.start(self._client, place, "train (live)", "live", {"retune.stage": "train"})
        points = read_points(self._seen[self._fed :])
        now = milliseconds()
        log_all(self._client, self.run_id, metrics=[Metric(key(p.name), p.value, now if p.at is None else p.at, p.step) for p in points])
        self._fed = len(self._seen)

    def end(self, status: str) -> None:
        """Close the live run, if there is one."""
        if self.run_id is not None and self._client is not None:
            try:
                self._client.set_terminated(self.run_id, status)
            except Exception as error:
                log.warning("the live run %s could not be closed: %s", self.run_id, error)


@contextmanager
def follow(history: Path, uri: str, model: str, seconds: float = 3.0) -> Iterator[Followed]:
    """Watch `history` while the block runs, looking every `seconds`; `record` makes the live run the train child afterwards.

    The live run is opened when the file first grows, FINISHED at the end of the block, FAILED when it raises and KILLED
    when it is interrupted.
    """
    followed, stop = Followed(history, uri, model), threading.Event()

    def watch() -> None:
        while not stop.wait(seconds):
            followed.look()

    thread = threading.Thread(target=watch, name="follow", daemon=True)
    thread.start()
    status = "KILLED"
    try:
        yield followed
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        stop.set()
        thread.join(timeout=30)
        if not thread.is_alive():
            followed.look()
            followed.end(status)
