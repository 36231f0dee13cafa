"""A registered version, asked in a fresh process outside the repository: its own code answers, not today's.

Reads what `components/scoring.py` writes.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from components import process, scoring
from components.errors import BadModel, Cancelled, Unavailable

log = logging.getLogger(__name__)

SECONDS = 3_600


@dataclass(frozen=True)
class Answers:
    """What a version answered: `predicted` (n,), `probabilities` (n, k), and the folder of the code that answered."""

    predicted: list[str]
    probabilities: npt.NDArray[np.float64]
    labels: tuple[str, ...]
    code: Path

    @classmethod
    def read(cls, path: Path) -> "Answers":
        """Read a file with the columns `predicted` and `probabilities` and the labels in its metadata."""
        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        labels = tuple(json.loads(metadata[b"retune.labels"]))
        probabilities = np.array(table.column("probabilities").to_pylist(), dtype=np.float64).reshape(len(table), len(labels))
        return cls(table.column("predicted").to_pylist(), probabilities, labels, Path(metadata.get(b"retune.code", b"").decode()))


def ask(uri: str, model: str, texts: Sequence[str], seconds: float = SECONDS) -> Answers:
    """Load the `models:/` URI `model` from the store `uri` in a fresh process and answer `texts`.

    Raises:
        BadModel: it cannot be loaded, does not answer, or takes longer than `seconds`.
        Unavailable: its process was killed.
        Cancelled: `process.end_children` was called meanwhile.
    """
    with tempfile.TemporaryDirectory(prefix="retune-") as name:
        folder = Path(name)
        pq.write_table(pa.table({"text": pa.array(list(texts), pa.string())}), folder / "texts.parquet")
        _run(uri, [model, str(folder / "texts.parquet"), str(folder / "answers.parquet")], folder, seconds)
        answers = Answers.read(folder / "answers.parquet")
    log.info("%s answered %d texts with the code in %s", model, len(texts), answers.code)
    return answers


def _run(uri: str, arguments: list[str], folder: Path, seconds: float) -> None:
    # -P: neither the script's folder nor the working folder is on the import path, so the package's code comes first.
    # -B: no compiled files are left beside the package's code.
    python = [sys.executable, "-P", "-B"]
    command = [*python, str(process.__file__), *python, str(scoring.__file__), *arguments]
    environment = {**os.environ, "PYTHONPATH": _path_without_components(os.environ.get("PYTHONPATH", ""))}
    environment |= {**process.QUIET, "MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri}
    environment |= {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "HF_HUB_OFFLINE": "1"}
    said, code = _wait(command, folder, environment, arguments[0], seconds)
    if code == -signal.SIGKILL:
        raise Unavailable(f"{arguments[0]} was killed while it answered (signal 9), for lack of memory or by hand; run again")
    if code != 0:
        lines = [line for line in said.strip().splitlines() if line.strip()]
        raise BadModel(f"{arguments[0]} cannot be asked: {lines[-1] if lines else f'its process ended with {code}'}")


def _wait(command: list[str], folder: Path, environment: Mapping[str, str], model: str, seconds: float) -> tuple[str, int]:
    """Run a command that `process.end_children` can end; return what it said on standard error, and its exit code."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as child:
        process.CHILDREN.add(child)
        try:
            said = child.communicate(timeout=seconds)[1]
            if child not in process.CHILDREN:
                raise Cancelled(f"asking {model} was cancelled; run again to go on where it stopped")
        except subprocess.TimeoutExpired:
            raise BadModel(f"{model} did not answer within {seconds:g} s") from None
        finally:  # Ctrl-C and SIGTERM leave nothing behind either
            process.end_group(child)
            process.CHILDREN.discard(child)
    return said, child.returncode


def _path_without_components(path: str) -> str:
    """Return PYTHONPATH without the folders from which today's `components` would be imported; what is left is absolute."""
    entries = [Path(entry).absolute() for entry in path.split(os.pathsep) if entry]
    return os.pathsep.join(str(entry) for entry in entries if not any((entry / name).exists() for name in ("components", "components.py")))
