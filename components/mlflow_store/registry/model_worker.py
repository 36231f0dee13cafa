"""Worker process for one registered version: `python -P model_worker.py MODEL` loads it once and answers requests line by line.

It is run as a file, from a folder outside the repository, and imports nothing of Retune: `components` must come from the model's own
package, or the version would run today's code. Requests are lines of JSON on standard input, replies lines on standard output:
`{"result": …}` or `{"error": "…"}`; the first reply reports that the model is loaded. Other output goes to standard error.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


class LoadedVersion:
    """The loaded version; its public methods are the requests that it answers."""

    def __init__(self, model: str) -> None:
        """Load `model`, a models:/ URI."""
        import mlflow.pyfunc

        if "components" in sys.modules:
            raise SystemExit("components was imported before the model, so the model's own code would not be used")
        self._loaded = mlflow.pyfunc.load_model(model)
        self._predictor = self._loaded.unwrap_python_model().predictor

    def answer(self, rows: str, answers: str) -> int:
        """Answer the rows of a Parquet file; write `predicted`, `probabilities` and `measured.NAME` to the file `answers`.

        Probabilities are in the order of the labels in the file's metadata; empty for tasks without classes.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(rows).to_pandas()
        if hasattr(self._predictor, "answer"):
            output = self._predictor.answer(table)
            predicted, probabilities, labels, measured = output.predicted, output.probabilities.tolist(), output.labels, output.measured
        else:  # versions of early releases only classify texts
            answered, labels, measured = self._loaded.predict(table[["text"]]), self._predictor.labels, {}
            predicted = answered["label"].tolist()
            probabilities = [[row[label] for label in labels] for row in answered["probabilities"]]
        columns = {"predicted": pa.array(predicted, pa.string()), "probabilities": pa.array(probabilities, pa.list_(pa.float64()))}
        columns |= {f"measured.{name}": pa.array(values, pa.float64()) for name, values in measured.items()}
        code = str(Path(sys.modules["components"].__file__ or "").parent)
        result = pa.table(columns).replace_schema_metadata({"retune.labels": json.dumps(list(labels)), "retune.code": code})
        partial = Path(answers + ".partial")
        pq.write_table(result, partial)
        os.replace(partial, answers)
        return len(result)

    def times(self, rows: str, batch_size: int, requests: int) -> list[float]:
        """Return the seconds of each of `requests` calls with `batch_size` rows, cycling through the Parquet file `rows`."""
        import pyarrow.parquet as pq

        table = pq.read_table(rows).to_pandas()
        frames = [
            table.iloc[[index % len(table) for index in range(number * batch_size, (number + 1) * batch_size)]].reset_index(drop=True)
            for number in range(requests)
        ]
        return [self._seconds(frame) for frame in frames]

    def peak_memory(self) -> float:
        """Return the peak resident memory of this process in MiB."""
        status = Path("/proc/self/status")  # ru_maxrss starts at the peak of the parent process
        if status.exists():
            return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)  # bytes on macOS

    def _seconds(self, frame: Any) -> float:
        start = time.perf_counter()
        self._loaded.predict(frame)
        return time.perf_counter() - start


def main(model: str) -> None:
    """Load `model` and answer requests until standard input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    version = LoadedVersion(model)
    print(json.dumps({"result": "loaded"}), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"result": getattr(version, request.pop("method"))(**request)}
        except Exception as error:  # report any error of the version's own code
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
