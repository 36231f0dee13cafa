"""Query a registered version in a new process outside the repository, so that its own code answers and not today's.

Starts `components/mlflow_store/registry/model_worker.py` and exchanges lines of JSON with it.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.predictions import ModelOutput, Predictions, measured_of
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
# -B: no compiled files are written next to the package's code.
PYTHON = (sys.executable, "-P", "-B")


@dataclass(frozen=True)
class WorkerReply(ModelOutput):
    """The output of a version, and the folder of the `code` that computed it."""

    code: Path = Path()

    @classmethod
    def read(cls, path: Path) -> "WorkerReply":
        """Read a file with the columns `predicted`, `probabilities` and `measured.NAME`, and the labels in its metadata."""
        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        labels = tuple(json.loads(metadata[b"retune.labels"]))
        probabilities = np.array(table.column("probabilities").to_pylist(), dtype=np.float64).reshape(len(table), len(labels))
        measured = {name: table.column(f"measured.{name}").to_numpy() for name in measured_of(table.column_names)}
        code = Path(metadata.get(b"retune.code", b"").decode())
        return cls(table.column("predicted").to_pylist(), probabilities, labels, measured, code)


class Worker:
    """A process that answers lines of JSON; `process.end_children` or the death of its parent ends it.

    On Linux the parent is the thread that started it: that thread must live as long as the worker is used.
    """

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str], name: str) -> None:
        """Start `command` in the working folder `folder`, where its standard error is logged; `name` is for messages."""
        self.name = name
        self._log = folder / "worker.log"
        self._buffer = b""
        self._ready, self._ended = False, False
        with self._log.open("wb") as output:
            self._child = subprocess.Popen(
                process.tied_command(command),
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                start_new_session=True,
            )
        process.CHILDREN.add(self._child)

    def call(self, request: Mapping[str, Any], seconds: float) -> Any:
        """Send a request and return the result; the first call also waits, within the same `seconds`, until the worker is ready.

        Raises:
            BadModel: the worker reports an error, ended by itself, or exceeds `seconds`, after which it is stopped.
            Unavailable: the worker was killed.
            Cancelled: `process.end_children` was called.
        """
        if self._ended:
            raise BadModel(f"{self.name} cannot be queried: its process has ended")
        deadline = time.monotonic() + seconds
        if not self._ready:
            self._reply(deadline, seconds)
            self._ready = True
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(dict(request)) + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise self._exit_error() from None
        return self._reply(deadline, seconds)

    @property
    def pid(self) -> int:
        """The id of the process, which leads its process group."""
        return self._child.pid

    def end(self) -> None:
        """End the process and its group; later calls raise BadModel."""
        process.end_group(self._child)
        process.CHILDREN.discard(self._child)
        self._ended = True
        for pipe in (self._child.stdin, self._child.stdout):
            with contextlib.suppress(BrokenPipeError):  # an unread request
                if pipe is not None:
                    pipe.close()

    def _reply(self, deadline: float, seconds: float) -> Any:
        reply = json.loads(self._line(deadline, seconds))
        if "error" in reply:
            raise BadModel(f"{self.name} cannot be queried: {(reply['error'].strip() or 'no reason given').splitlines()[0]}")
        return reply["result"]

    def _line(self, deadline: float, seconds: float) -> bytes:
        assert self._child.stdout is not None
        pipe = self._child.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(deadline - time.monotonic(), 0)):
                    self.end()
                    raise BadModel(f"{self.name} did not answer within {seconds:g} s")
                block = os.read(pipe, 1 << 16)
                if not block:
                    raise self._exit_error()
                self._buffer += block
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _exit_error(self) -> BaseException:
        """Return the error that says why the process has ended."""
        cancelled = self._child not in process.CHILDREN
        try:
            self._child.wait(5)  # its pipes close shortly before it exits
        except subprocess.TimeoutExpired:
            log.warning("worker for %s closed its pipes but did not exit; killing it", self.name)
        code = self._child.returncode
        self.end()
        if cancelled:
            return Cancelled(f"the request to {self.name} was cancelled; run again to continue")
        if code == -signal.SIGKILL:
            return Unavailable(f"{self.name} was killed while it answered (signal 9): out of memory, or manually; run again")
        return BadModel(f"{self.name} cannot be queried: {last_line(self._log) or f'its process ended with {code}'}")


class Session:
    """A registered version in its own process, which loads it once and answers any number of requests.

    Entering starts the process; the first request waits until the version is loaded, so that two sessions can load in parallel.
    Every request raises BadModel if the version cannot be loaded, fails, or takes longer than `seconds`; Unavailable if its process was
    killed; Cancelled if `process.end_children` was called. Use it only in the thread that entered it.
    """

    def __init__(
        self, uri: str, model: str, seconds: float = SECONDS, rename_labels: Callable[[ModelOutput], ModelOutput] | None = None
    ) -> None:
        """Prepare a session of the `models:/` URI `model` in the store `uri`; `rename_labels` converts old labels to today's names."""
        self.uri, self.model, self.seconds, self._logged, self._rename_labels = uri, model, seconds, False, rename_labels

    def __enter__(self) -> Self:
        self._folder = make()
        try:
            environment = isolated_environment(self.uri, self._folder)
            self._worker = Worker([*PYTHON, str(model_worker.__file__), self.model], self._folder, environment, self.model)
        except BaseException:
            remove(self._folder)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.end()
        remove(self._folder)

    def answer(self, rows: Rows) -> WorkerReply:
        """Answer `rows`; if they contain the expected answers, the output also has the model's own measurements of them."""
        answers = self._folder / "answers.parquet"
        self._worker.call({"method": "answer", "rows": str(self._write(rows)), "answers": str(answers)}, self.seconds)
        reply = WorkerReply.read(answers)
        level = logging.DEBUG if self._logged else logging.INFO
        log.log(level, "%s answered %d rows with the code in %s", self.model, len(rows), reply.code)
        self._logged = True
        if self._rename_labels is None:
            return reply
        return WorkerReply(**{**vars(self._rename_labels(reply)), "code": reply.code})

    def times(self, rows: Rows, batch_size: int, requests: int) -> list[float]:
        """Return the seconds of each of `requests` calls of the model's `predict` with `batch_size` rows, cycling through `rows`."""
        request = {"method": "times", "rows": str(self._write(rows)), "batch_size": batch_size, "requests": requests}
        return [float(seconds) for seconds in self._worker.call(request, self.seconds)]

    def peak_memory(self) -> float:
        """Return the peak resident memory of the process in MiB, libraries included."""
        return float(self._worker.call({"method": "peak_memory"}, self.seconds))

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._worker.pid

    def _write(self, rows: Rows) -> Path:
        path = self._folder / "rows.parquet"
        columns = {str(name): rows[name].tolist() for name in rows.columns} if isinstance(rows, pd.DataFrame) else {"text": list(rows)}
        pq.write_table(pa.table({name: pa.array(cells, pa.string(), from_pandas=True) for name, cells in columns.items()}), path)
        return path


def answer_rows(uri: str, model: str, rows: Rows, seconds: float = SECONDS) -> WorkerReply:
    """Load the `models:/` URI `model` from the store `uri` in a new process and answer `rows`; raises like a `Session`."""
    with Session(uri, model, seconds) as session:
        return session.answer(rows)


def predictions_of(reply: WorkerReply, rows: pd.DataFrame) -> Predictions:
    """Return the reply to `rows` (id, group, label) as predictions, ordered by id."""
    return Predictions.from_output(rows, reply).in_order()


def isolated_environment(uri: str, folder: Path) -> dict[str, str]:
    """Return the environment for loading versions of the store `uri`: today's `components` cannot be imported in it.

    Temporary files are written to `folder`, which its owner removes even if the process is killed.
    """
    variables = {**os.environ, "PYTHONPATH": _path_without_components(os.environ.get("PYTHONPATH", ""))}
    variables |= {**process.QUIET, "MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri}
    variables |= {PROJECT: str(Path(os.environ.get(PROJECT, "")).absolute()), "TMPDIR": str(folder)}
    if bases := os.environ.get(BASE):
        variables[BASE] = os.pathsep.join(str(Path(base).expanduser().absolute()) for base in bases.split(os.pathsep) if base)
    variables.pop(KEY, None)  # a package's code must not sign the ledger
    return variables | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "HF_HUB_OFFLINE": "1"}


def last_line(path: Path) -> str:
    """Return the last non-empty line of a text file, or an empty string."""
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _path_without_components(path: str) -> str:
    """Return PYTHONPATH as absolute paths, without folders that contain `components`."""
    entries = [Path(entry).absolute() for entry in path.split(os.pathsep) if entry]
    return os.pathsep.join(str(entry) for entry in entries if not any((entry / name).exists() for name in ("components", "components.py")))
