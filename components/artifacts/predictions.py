"""`predictions.parquet`: one row per test example, for the candidate, the champion and each baseline.

Columns: id, group, expected, predicted (text); probabilities (list of float64 in the order of the labels, which are in the metadata of
the file; empty for tasks without labels); one float64 column `measured.NAME` for each number measured by the model. Rows are sorted by
id, so that the files of a test set align.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from components.core.errors import NotFound

LABELS = b"retune.labels"
MEASURED = "measured."
PROBABILITY = "probability "
"""Prefix of probabilities in `ModelOutput.measured`, for answers that are not just the most likely label."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ModelOutput:
    """The output of a model: `predicted`, one text per row; `probabilities` (n, k) of the k `labels`, if the task has labels.

    `measured` maps names to numbers (n,) that only the model can compute, e.g. the log-likelihood of the expected text.
    """

    predicted: list[str]
    probabilities: Floats
    labels: tuple[str, ...] = ()
    measured: Mapping[str, Floats] = field(default_factory=dict)

    @classmethod
    def texts(cls, predicted: Sequence[str], measured: Mapping[str, Floats] | None = None) -> "ModelOutput":
        """Return an output without probabilities."""
        return cls(list(predicted), np.zeros((len(predicted), 0)), (), dict(measured or {}))

    @classmethod
    def classes(cls, probabilities: Floats, labels: Sequence[str]) -> "ModelOutput":
        """Return the most likely of the `labels` for each row of `probabilities` (n, k)."""
        return cls([labels[index] for index in probabilities.argmax(axis=1)], probabilities, tuple(labels))


@dataclass(frozen=True)
class Predictions:
    """The output of a model for test rows: `ids`, `groups`, `expected`, `predicted` are text arrays (n,); the rest as in `ModelOutput`."""

    ids: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]
    expected: npt.NDArray[np.str_]
    predicted: npt.NDArray[np.str_]
    probabilities: Floats
    labels: tuple[str, ...]
    measured: Mapping[str, Floats] = field(default_factory=dict)

    @classmethod
    def from_output(cls, rows: pd.DataFrame, output: ModelOutput) -> "Predictions":
        """Combine test `rows` (id, group, label) with the output of a model for them."""
        ids, groups, expected = (np.array(rows[column].tolist(), dtype=np.str_) for column in ("id", "group", "label"))
        predicted = np.array(output.predicted, dtype=np.str_)
        return cls(ids, groups, expected, predicted, output.probabilities, output.labels, dict(output.measured))

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> "Predictions":
        """Return the `rows`, by mask (n,) or index."""
        return Predictions(
            *(self.ids[rows], self.groups[rows], self.expected[rows], self.predicted[rows], self.probabilities[rows], self.labels),
            {name: values[rows] for name, values in self.measured.items()},
        )

    def in_order(self) -> "Predictions":
        """Return the rows sorted by id (code points)."""
        return self.take(np.argsort(self.ids, kind="stable"))

    def write(self, path: Path) -> None:
        """Write the rows, sorted by id."""
        rows = self.in_order()
        columns = {"id": rows.ids, "group": rows.groups, "expected": rows.expected, "predicted": rows.predicted}
        texts = {name: pa.array(values.tolist(), pa.string()) for name, values in columns.items()}
        probabilities = pa.array(rows.probabilities.tolist(), pa.list_(pa.float64()))
        measured = {f"{MEASURED}{name}": pa.array(values, pa.float64()) for name, values in sorted(rows.measured.items())}
        table = pa.table({**texts, "probabilities": probabilities, **measured})
        pq.write_table(table.replace_schema_metadata({LABELS: json.dumps(self.labels).encode()}), path)

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """Read a file of `write`.

        Raises:
            NotFound: the file is missing or damaged.
        """
        if not path.exists():
            raise NotFound(f"{path} is missing: `dvc repro evaluate` writes it")
        try:
            table = pq.read_table(path)
            labels = tuple(json.loads((table.schema.metadata or {})[LABELS]))
            columns = ("id", "group", "expected", "predicted")
            ids, groups, expected, predicted = (np.array(table.column(name).to_pylist(), dtype=np.str_) for name in columns)
            probabilities = np.array(table.column("probabilities").to_pylist(), dtype=np.float64).reshape(len(table), len(labels))
            measured = {name: table.column(f"{MEASURED}{name}").to_numpy() for name in measured_of(table.column_names)}
            return cls(ids, groups, expected, predicted, probabilities, labels, measured)
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise NotFound(f"{path} is damaged ({reason}): delete it; `dvc checkout` or `dvc repro evaluate` restores it") from None


Output = TypeVar("Output", ModelOutput, Predictions)


def relabelled(output: Output, rename: Callable[[str], str], rename_answer: Callable[[str], str]) -> Output:
    """Return the output with each label renamed; the probabilities of labels with the same new name are added.

    `rename_answer` renames the labels in an answer, which may contain several.
    """
    labels = tuple(dict.fromkeys(map(rename, output.labels)))
    probabilities, predicted = output.probabilities, [rename_answer(str(answer)) for answer in output.predicted]
    if len(labels) < len(output.labels):
        columns = np.array([labels.index(rename(label)) for label in output.labels])
        probabilities = np.stack([output.probabilities[:, columns == at].sum(axis=1) for at in range(len(labels))], axis=1)
        predicted = [labels[at] for at in probabilities.argmax(axis=1)]
    measured: dict[str, Floats] = {}
    for name, values in output.measured.items():
        new = f"{PROBABILITY}{rename(name.removeprefix(PROBABILITY))}" if name.startswith(PROBABILITY) else name
        measured[new] = np.minimum(measured[new] + values, 1.0) if new in measured else values
    output = replace(output, probabilities=probabilities, labels=labels, measured=measured)
    if isinstance(output, ModelOutput):
        return replace(output, predicted=predicted)
    expected = [rename_answer(str(answer)) for answer in output.expected]
    return replace(output, expected=np.array(expected, dtype=np.str_), predicted=np.array(predicted, dtype=np.str_))


def probabilities_of(measured: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return the probabilities in `measured` by label, (n,) each."""
    return {name.removeprefix(PROBABILITY): values for name, values in measured.items() if name.startswith(PROBABILITY)}


def by_row(probabilities: Mapping[str, Floats]) -> list[dict[str, float]]:
    """Return probabilities by label, (n,) each, as one mapping per row."""
    return [dict(zip(probabilities, map(float, row), strict=True)) for row in zip(*probabilities.values(), strict=True)]


def served_columns(output: ModelOutput) -> dict[str, list[Any]]:
    """Return the columns of served answers: label, probability and probabilities (label to probability), or answer without classes.

    An answer that combines labels, such as a set of them, also has probabilities.
    """
    if not output.labels:
        probabilities = probabilities_of(output.measured)
        return {"answer": output.predicted} | ({"probabilities": by_row(probabilities)} if probabilities else {})
    rows = [dict(zip(output.labels, map(float, row), strict=True)) for row in output.probabilities]
    best = [row[label] for row, label in zip(rows, output.predicted, strict=True)]
    return {"label": output.predicted, "probability": best, "probabilities": rows}


def measured_of(columns: Sequence[str]) -> list[str]:
    """Return the names of the measured numbers among the `columns` of a file."""
    return [name.removeprefix(MEASURED) for name in columns if name.startswith(MEASURED)]


def answer_distance(answer: str, reference: str) -> float:
    """Return the distance of two answers: 0 for the same text, infinite for different texts.

    For JSON numbers it is the largest difference, relative to the number if that exceeds 1.
    """
    if answer == reference:
        return 0.0
    try:
        first, second = (np.asarray(json.loads(text), dtype=np.float64) for text in (answer, reference))
    except (ValueError, TypeError):
        return float("inf")
    if first.shape != second.shape or not first.size:
        return float("inf")
    largest = float(np.max(np.abs(first - second) / np.maximum(1.0, np.abs(first))))
    return largest if np.isfinite(largest) else float("inf")
