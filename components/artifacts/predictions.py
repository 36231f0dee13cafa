"""`predictions.parquet`: one row an example of the test split, for the candidate, the champion and each baseline.

Columns: id (text), group (text), expected (text), predicted (text), probabilities (list of float64 in the order of the
labels, which are stored in the file's metadata). Rows are ordered by id, so that two files of one test set line up.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from components.errors import NotThere

LABELS = b"retune.labels"


@dataclass(frozen=True)
class Predictions:
    """What a model answered: `ids`, `groups`, `expected`, `predicted` are text arrays of shape (n,), `probabilities` is (n, k)."""

    ids: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]
    expected: npt.NDArray[np.str_]
    predicted: npt.NDArray[np.str_]
    probabilities: npt.NDArray[np.float64]
    labels: tuple[str, ...]

    def take(self, rows: npt.NDArray[np.bool_]) -> "Predictions":
        """Return the `rows` (n,) that are true."""
        return Predictions(
            self.ids[rows], self.groups[rows], self.expected[rows], self.predicted[rows], self.probabilities[rows], self.labels
        )

    def write(self, path: Path) -> None:
        """Write the rows in the order of their ids."""
        order = np.argsort(self.ids, kind="stable")
        table = pa.table(
            {
                "id": pa.array(self.ids[order].tolist(), pa.string()),
                "group": pa.array(self.groups[order].tolist(), pa.string()),
                "expected": pa.array(self.expected[order].tolist(), pa.string()),
                "predicted": pa.array(self.predicted[order].tolist(), pa.string()),
                "probabilities": pa.array(self.probabilities[order].tolist(), pa.list_(pa.float64())),
            }
        ).replace_schema_metadata({LABELS: json.dumps(self.labels).encode()})
        pq.write_table(table, path)

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """Read what `write` wrote.

        Raises:
            NotThere: the file is missing.
        """
        if not path.exists():
            raise NotThere(f"{path} is missing: `dvc repro evaluate` writes it")
        table = pq.read_table(path)
        labels = tuple(json.loads((table.schema.metadata or {})[LABELS]))
        columns = ("id", "group", "expected", "predicted")
        ids, groups, expected, predicted = (np.array(table.column(name).to_pylist(), dtype=np.str_) for name in columns)
        probabilities = np.array(table.column("probabilities").to_pylist(), dtype=np.float64).reshape(len(table), len(labels))
        return cls(ids, groups, expected, predicted, probabilities, labels)
