"""A registered version, asked in a fresh process outside the repository: its own code answers, not today's.

Starts what `components/mlflow_store/registry/model_worker.py` is, and talks to it line by line.
"""

import contextlib
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts import predictions
from components.artifacts.predictions import Predictions
from components.core import process
from components.core.errors import BadModel, Cancelled, Unavailable
from components.core.temporary import make, remove
from components.ledger.chain import KEY
from components.mlflow_store.registry import model_worker
from components.model.base_resolver import BASE, PROJECT

log = logging.getLogger(__name__)

SECONDS = 3_600

Rows = pd.DataFrame | Sequence[str]
"""A table of texts with the task's columns; a sequence of texts is the column `text`."""

# -P: neither the script's folder nor the working folder is on the import path, so the package's code comes first.
# -B: no compiled files are left beside the package's code.
PYTHON = (sys.executable, "-P", "-B")


Renamed = Callable[[predictions.ModelOutput], predictions.ModelOutput]


@dataclass(frozen=True)
class WorkerReply:
    """What a version answered, and the folder of the `code` that answered."""

    found: predictions.ModelOutput
    code: Path

    @property
    def predicted(self) -> list[str]:
        """The answer to each row."""
        return self.found.predicted

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """The probability of each label for each row, shape (n, k); k is 0 where a task has no classes."""
        return self.found.probabilities

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the columns of `probabilities`."""
        return self.found.labels

    def columns(self) -> dict[str, list[Any]]:
        """Return what is told of each row, by name: label, probability and probabilities (label to probability), or answer.

        Beside an answer that is made of labels, as a set of them is, `probabilities` stand too.
        """
        if not self.labels:
            found = predictions.probabilities_of(self.found.measured)
            return {"answer": self.predicted} | ({"probabilities": predictions.by_row(found)} if found else {})
        rows = [dict(zip(self.labels, map(float, row), strict=True)) for row in self.probabilities]
        best = [row[label] for row, label in zip(rows, self.predicted, strict=True)]
        return {"label": self.predicted, "probability": best, "probabilities": rows}

    @classmethod
    def read(cls, path: Path) -> "WorkerReply":
        """Read a file with the columns `predicted`, `probabilities` and `measured.NAME`, and the labels in its metadata."""
        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        labels = tuple(json.loads(metadata[b"retune.labels"]))
        probabilities = np.array(table.column("probabilities").to_pylist(), dtype=np.float64).reshape(len(table), len(labels))
        measured = {name: table.column(f"measured.{name}").to_numpy() for name in predictions.measured_of(table.column_names)}
        found = predictions.ModelOutput(table.column("predicted").to_pylist(), probabilities, labels, measured)
        return cls(found, Path(metadata.get(b"retune.code", b"").decode()))


class Worker:
    """A process that answers lines of JSON with lines of JSON; `process.end_children` ends it, as does its parent's death.

    On Linux the parent is the thread that started it: that thread must live as long as the worker is asked.
    """

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str], called: str) -> None:
        """Start `command` with the working folder `folder`, where it leaves what it says on standard error; `called` is for messages."""
        self.called = called
        self._said = folder / "said.txt"
        self._heard = b""
        self._first, self._ended = True, False
        with self._said.open("wb") as said:
            self._child = subprocess.Popen(
                process.tied_command(command),
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                start_new_session=True,
            )
        process.CHILDREN.add(self._child)

    def ask(self, question: Mapping[str, Any], seconds: float) -> Any:
        """Return the answer; the first question also waits, within the same `seconds`, until the worker is ready.

        Raises:
            BadModel: it answers with a fault, ended by itself, or takes longer than `seconds`, after which it is ended.
            Unavailable: it was killed.
            Cancelled: `process.end_children` was called meanwhile.
        """
        if self._ended:
            raise BadModel(f"{self.called} cannot be asked any more: its process has ended")
        deadline = time.monotonic() + seconds
        if self._first:
            self._reply(deadline, seconds)
            self._first = False
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(dict(question)) + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise self._gone() from None
        return self._reply(deadline, seconds)

    @property
    def pid(self) -> int:
        """The number of the process, which leads its group."""
        return self._child.pid

    def end(self) -> None:
        """End the process and its group; afterwards nothing can be asked."""
        process.end_group(self._child)
        process.CHILDREN.discard(self._child)
        self._ended = True
        for pipe in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(BrokenPipeError):  # a question that was never read
                if pipe is not None:
                    pipe.close()

    def _reply(self, deadline: float, seconds: float) -> Any:
        reply = json.loads(self._line(deadline, seconds))
        if "fault" in reply:
            raise BadModel(f"{self.called} cannot be asked: {_first_line(reply['fault'])}")
        return reply["is"]

    def _line(self, deadline: float, seconds: float) -> bytes:
        assert self._child.stdout is not None
        pipe = self._child.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._heard:
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    self.end()
                    raise BadModel(f"{self.called} did not answer within {seconds:g} s")
                found = os.read(pipe, 1 << 16)
                if not found:
                    raise self._gone()
                self._heard += found
        line, _, self._heard = self._heard.partition(b"\n")
        return line

    def _gone(self) -> Exception:
        """Say why the process is no more."""
        cancelled = self._child not in process.CHILDREN
        try:
            self._child.wait(5)  # its pipes close a moment before it ends
        except subprocess.TimeoutExpired:
            log.warning("%s closed its pipes and goes on; it is ended", self.called)
        code = self._child.returncode
        self.end()
        if cancelled:
            return Cancelled(f"asking {self.called} was cancelled; run again to go on where it stopped")
        if code == -signal.SIGKILL:
            return Unavailable(f"{self.called} was killed while it answered (signal 9), for lack of memory or by hand; run again")
        return BadModel(f"{self.called} cannot be asked: {last_line(self._said) or f'its process ended with {code}'}")


class Session:
    """A registered version in a process of its own that loads it once and answers any number of questions.

    Entering starts the process; the first question waits until the version is loaded, so that two sessions load side by side.
    Every question raises BadModel when the version cannot be loaded, fails, or takes longer than `seconds`; Unavailable when its
    process was killed; Cancelled when `process.end_children` was called. To be asked in the thread that entered it.
    """

    def __init__(
        self,
        uri: str,
        model: str,
        seconds: float = SECONDS,
        renamed: Callable[[predictions.ModelOutput], predictions.ModelOutput] | None = None,
    ) -> None:
        """Of the `models:/` URI `model` in the store `uri`; no question may take longer than `seconds`.

        `renamed` gives its answers today's names of labels.
        """
        self.uri, self.model, self.seconds, self._told, self._renamed = uri, model, seconds, False, renamed

    def __enter__(self) -> Self:
        """Start the process."""
        self._folder = make()
        try:
            surroundings = environment(self.uri, self._folder)
            self._worker = Worker([*PYTHON, str(model_worker.__file__), self.model], self._folder, surroundings, self.model)
        except BaseException:
            remove(self._folder)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the process and remove its files."""
        self._worker.end()
        remove(self._folder)

    def answer(self, rows: Rows) -> WorkerReply:
        """Answer `rows`; where they hold the expected answers too, also what the model alone can tell of them."""
        answers = self._folder / "answers.parquet"
        self._worker.ask({"ask": "answer", "rows": str(self._write(rows)), "answers": str(answers)}, self.seconds)
        found = WorkerReply.read(answers)
        log.log(logging.DEBUG if self._told else logging.INFO, "%s answered %d rows with the code in %s", self.model, len(rows), found.code)
        self._told = True
        return found if self._renamed is None else replace(found, found=self._renamed(found.found))

    def times(self, rows: Rows, batch_size: int, requests: int) -> list[float]:
        """Return the seconds of each of `requests` calls with `batch_size` rows, taken in turn; measured around the model's `predict`."""
        question = {"ask": "times", "rows": str(self._write(rows)), "batch_size": batch_size, "requests": requests}
        return [float(seconds) for seconds in self._worker.ask(question, self.seconds)]

    def peak_memory(self) -> float:
        """Return the most MiB that the process had resident so far, libraries included."""
        return float(self._worker.ask({"ask": "peak_memory"}, self.seconds))

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._worker.pid

    def _write(self, rows: Rows) -> Path:
        path = self._folder / "rows.parquet"
        columns = {str(name): rows[name].tolist() for name in rows.columns} if isinstance(rows, pd.DataFrame) else {"text": list(rows)}
        pq.write_table(pa.table({name: pa.array(cells, pa.string(), from_pandas=True) for name, cells in columns.items()}), path)
        return path


def ask(uri: str, model: str, rows: Rows, seconds: float = SECONDS) -> WorkerReply:
    """Load the `models:/` URI `model` from the store `uri` in a fresh process and answer `rows`.

    Raises:
        BadModel: it cannot be loaded, does not answer, or takes longer than `seconds`.
        Unavailable: its process was killed.
        Cancelled: `process.end_children` was called meanwhile.
    """
    with Session(uri, model, seconds) as session:
        return session.answer(rows)


def predictions_of(answers: WorkerReply, rows: pd.DataFrame) -> Predictions:
    """Return `answers` to `rows` (id, group, label) as predictions, ordered by id."""
    return Predictions.from_output(rows, answers.found).in_order()


def environment(uri: str, folder: Path) -> dict[str, str]:
    """Return the environment in which versions of the store `uri` are loaded: today's `components` cannot be found there.

    Temporary files go into `folder`, which its owner removes, also where the process is killed.
    """
    found = {**os.environ, "PYTHONPATH": _path_without_components(os.environ.get("PYTHONPATH", ""))}
    found |= {**process.QUIET, "MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri}
    found |= {PROJECT: str(Path(os.environ.get(PROJECT, "")).absolute()), "TMPDIR": str(folder)}
    if os.environ.get(BASE):
        found[BASE] = os.pathsep.join(str(Path(each).expanduser().absolute()) for each in os.environ[BASE].split(os.pathsep) if each)
    found.pop(KEY, None)  # a package's code must not sign the ledger
    return found | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "HF_HUB_OFFLINE": "1"}


def last_line(path: Path) -> str:
    """Return the last line with something in it of a text file; empty where there is none."""
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _first_line(text: str) -> str:
    return (text.strip() or "no reason given").splitlines()[0]


def _path_without_components(path: str) -> str:
    """Return PYTHONPATH without the folders from which today's `components` would be imported; what is left is absolute."""
    entries = [Path(entry).absolute() for entry in path.split(os.pathsep) if entry]
    return os.pathsep.join(str(entry) for entry in entries if not any((entry / name).exists() for name in ("components", "components.py")))
