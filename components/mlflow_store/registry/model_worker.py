"""Ask a registered version, in a process of its own: `python -P scoring.py MODEL`, which loads it once and answers line by line.

It is run as a file, from a folder outside the repository, and imports nothing of Retune: `components` must come from the
model's own package, or a champion would answer with today's code. A question is a line of JSON on standard input, an answer one on
standard output: `{"is": …}` or `{"fault": "…"}`; the first says that the model is loaded. What libraries print goes to standard error.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


class LoadedVersion:
    """The loaded version, and the questions that it answers: the public methods, by name."""

    def __init__(self, model: str) -> None:
        """Load `model`, a models:/ URI."""
        import mlflow.pyfunc

        if "components" in sys.modules:
            raise SystemExit("components was imported before the model: its own code would not be used")
        self._loaded = mlflow.pyfunc.load_model(model)
        self._predictor = self._loaded.unwrap_python_model().predictor

    def answer(self, rows: str, answers: str) -> int:
        """Read the Parquet file `rows`; write `predicted`, `probabilities` and `measured.NAME` by rename, return the rows.

        Probabilities are in the order of the labels, which stand in the file's metadata; there are none where a task has no classes.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        asked = pq.read_table(rows).to_pandas()
        if hasattr(self._predictor, "answer"):
            found = self._predictor.answer(asked)
            predicted, probabilities, labels, measured = found.predicted, found.probabilities.tolist(), found.labels, found.measured
        else:  # a version of the time when there were classes of texts alone
            answered, labels, measured = self._loaded.predict(asked[["text"]]), self._predictor.labels, {}
            predicted = answered["label"].tolist()
            probabilities = [[row[label] for label in labels] for row in answered["probabilities"]]
        columns = {"predicted": pa.array(predicted, pa.string()), "probabilities": pa.array(probabilities, pa.list_(pa.float64()))}
        columns |= {f"measured.{name}": pa.array(values, pa.float64()) for name, values in measured.items()}
        code = str(Path(sys.modules["components"].__file__ or "").parent)
        table = pa.table(columns).replace_schema_metadata({"retune.labels": json.dumps(list(labels)), "retune.code": code})
        partial = Path(answers + ".partial")
        pq.write_table(table, partial)
        os.replace(partial, answers)
        return len(table)

    def times(self, rows: str, batch_size: int, requests: int) -> list[float]:
        """Return the seconds of each of `requests` calls with `batch_size` rows, taken in turn from the Parquet file `rows`."""
        import pyarrow.parquet as pq

        asked = pq.read_table(rows).to_pandas()
        frames = [
            asked.iloc[[place % len(asked) for place in range(number * batch_size, (number + 1) * batch_size)]].reset_index(drop=True)
            for number in range(requests)
        ]
        return [self._seconds(frame) for frame in frames]

    def peak_memory(self) -> float:
        """Return the most MiB that this process had resident so far."""
        status = Path("/proc/self/status")  # ru_maxrss would begin at the peak of the process that forked this one
        if status.exists():
            return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)  # bytes on macOS

    def _seconds(self, frame: Any) -> float:
        start = time.perf_counter()
        self._loaded.predict(frame)
        return time.perf_counter() - start


def main(model: str) -> None:
    """Load `model` and answer until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    version = LoadedVersion(model)
    print(json.dumps({"is": "loaded"}), file=replies, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            reply = {"is": getattr(version, question.pop("ask"))(**question)}
        except Exception as error:  # whatever the version's own code raises is its answer
            reply = {"fault": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
