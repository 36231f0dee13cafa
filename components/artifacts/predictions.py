"""`predictions.parquet`: one row an example of the test split, for the candidate, the champion and each baseline.

Columns: id, group, expected, predicted (text); probabilities (list of float64 in the order of the labels, which are stored in the file's
metadata; empty where the task has no labels); one float64 column `measured.NAME` for each number that only the model can tell.
Rows are ordered by id, so that two files of one test set line up.
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
"""Begins the names of probabilities in `ModelOutput.measured`, where an answer is not simply the likeliest label."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ModelOutput:
    """What a model answered: `predicted`, a text a row; `probabilities` (n, k) of the k `labels`, where the task has any.

    `measured` are numbers by name, each (n,), that only the model can tell, as the log-likelihood of the expected text.
    """

    predicted: list[str]
    probabilities: Floats
    labels: tuple[str, ...] = ()
    measured: Mapping[str, Floats] = field(default_factory=dict)

    @classmethod
    def texts(cls, predicted: Sequence[str], measured: Mapping[str, Floats] | None = None) -> "ModelOutput":
        """Return answers that have no probabilities."""
        return cls(list(predicted), np.zeros((len(predicted), 0)), (), dict(measured or {}))

    @classmethod
    def classes(cls, probabilities: Floats, labels: Sequence[str]) -> "ModelOutput":
        """Return the likeliest of the `labels` for each row of `probabilities` (n, k)."""
        return cls([labels[place] for place in probabilities.argmax(axis=1)], probabilities, tuple(labels))


@dataclass(frozen=True)
class Predictions:
    """What a model answered to test rows: `ids`, `groups`, `expected`, `predicted` are text arrays (n,); the rest as in `ModelOutput`."""

    ids: npt.NDArray[np.str_]
    groups: npt.NDArray[np.str_]
    expected: npt.NDArray[np.str_]
    predicted: npt.NDArray[np.str_]
    probabilities: Floats
    labels: tuple[str, ...]
    measured: Mapping[str, Floats] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: pd.DataFrame, answers: ModelOutput) -> "Predictions":
        """Put `answers` to the test `rows` (id, group, label) that they answer."""
        ids, groups, expected = (np.array(rows[column].tolist(), dtype=np.str_) for column in ("id", "group", "label"))
        predicted = np.array(answers.predicted, dtype=np.str_)
        return cls(ids, groups, expected, predicted, answers.probabilities, answers.labels, dict(answers.measured))

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> "Predictions":
        """Return the `rows`, by a mask (n,) or by their places."""
        return Predictions(
            *(self.ids[rows], self.groups[rows], self.expected[rows], self.predicted[rows], self.probabilities[rows], self.labels),
            {name: values[rows] for name, values in self.measured.items()},
        )

    def in_order(self) -> "Predictions":
        """Return the rows in the order of their ids, as code points."""
        return self.take(np.argsort(self.ids, kind="stable"))

    def write(self, path: Path) -> None:
        """Write the rows in the order of their ids."""
        rows = self.in_order()
        columns = {"id": rows.ids, "group": rows.groups, "expected": rows.expected, "predicted": rows.predicted}
        texts = {name: pa.array(values.tolist(), pa.string()) for name, values in columns.items()}
        probabilities = pa.array(rows.probabilities.tolist(), pa.list_(pa.float64()))
        measured = {f"{MEASURED}{name}": pa.array(values, pa.float64()) for name, values in sorted(rows.measured.items())}
        table = pa.table({**texts, "probabilities": probabilities, **measured})
        pq.write_table(table.replace_schema_metadata({LABELS: json.dumps(self.labels).encode()}), path)

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """Read what `write` wrote.

        Raises:
            NotThere: the file is missing or damaged.
        """
        if not path.exists():
            raise NotFound(f"{path} is missing: `dvc repro evaluate` writes it")
        try:
            return cls._read(path)
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            told = " ".join(str(error).split())
            raise NotFound(f"{path} is damaged ({told}): delete it; `dvc checkout` or `dvc repro evaluate` brings it back") from None

    @classmethod
    def _read(cls, path: Path) -> "Predictions":
        table = pq.read_table(path)
        labels = tuple(json.loads((table.schema.metadata or {})[LABELS]))
        columns = ("id", "group", "expected", "predicted")
        ids, groups, expected, predicted = (np.array(table.column(name).to_pylist(), dtype=np.str_) for name in columns)
        probabilities = np.array(table.column("probabilities").to_pylist(), dtype=np.float64).reshape(len(table), len(labels))
        measured = {name: table.column(f"{MEASURED}{name}").to_numpy() for name in measured_of(table.column_names)}
        return cls(ids, groups, expected, predicted, probabilities, labels, measured)


Found = TypeVar("Found", ModelOutput, Predictions)


def relabelled(found: Found, rename: Callable[[str], str], renamed: Callable[[str], str]) -> Found:
    """Return answers, or predictions, with `rename` of each label; the probabilities of labels that become one are added up.

    `renamed` does it to an answer, in which several labels may be named.
    """
    labels = tuple(dict.fromkeys(map(rename, found.labels)))
    probabilities, predicted = found.probabilities, [renamed(str(answer)) for answer in found.predicted]
    if len(labels) < len(found.labels):
        places = np.array([labels.index(rename(label)) for label in found.labels])
        probabilities = np.stack([found.probabilities[:, places == at].sum(axis=1) for at in range(len(labels))], axis=1)
        predicted = [labels[at] for at in probabilities.argmax(axis=1)]
    measured: dict[str, Floats] = {}
    for name, values in found.measured.items():
        new = f"{PROBABILITY}{rename(name.removeprefix(PROBABILITY))}" if name.startswith(PROBABILITY) else name
        measured[new] = np.minimum(measured[new] + values, 1.0) if new in measured else values
    found = replace(found, probabilities=probabilities, labels=labels, measured=measured)
    if isinstance(found, ModelOutput):
        return replace(found, predicted=predicted)
    expected = [renamed(str(answer)) for answer in found.expected]
    return replace(found, expected=np.array(expected, dtype=np.str_), predicted=np.array(predicted, dtype=np.str_))


def probabilities_of(measured: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return the probabilities that stand beside answers which are not simply the likeliest label, (n,) of each label."""
    return {name.removeprefix(PROBABILITY): values for name, values in measured.items() if name.startswith(PROBABILITY)}


def served_columns(output: ModelOutput) -> dict[str, list[Any]]:
    """Return the columns of served answers: label, probability and probabilities (label to probability), or answer without classes.

    An answer that combines labels, such as a set of them, also has probabilities.
    """
    if not output.labels:
        found = probabilities_of(output.measured)
        rows = [dict(zip(found, map(float, row), strict=True)) for row in zip(*found.values(), strict=True)]
        return {"answer": output.predicted} | ({"probabilities": rows} if found else {})
    rows = [dict(zip(output.labels, map(float, row), strict=True)) for row in output.probabilities]
    best = [row[label] for row, label in zip(rows, output.predicted, strict=True)]
    return {"label": output.predicted, "probability": best, "probabilities": rows}


def measured_of(columns: Sequence[str]) -> list[str]:
    """Return the names of what was measured among the `columns` of a file."""
    return [name.removeprefix(MEASURED) for name in columns if name.startswith(MEASURED)]


def answer_distance(one: str, other: str) -> float:
    """Return how far two answers are apart: 0 for the same text, infinite for different ones.

    Of JSON numbers it is the largest difference, beyond 1 relative to the number.
    """
    if one == other:
        return 0.0
    try:
        first, second = (np.asarray(json.loads(text), dtype=np.float64) for text in (one, other))
    except (ValueError, TypeError):
        return float("inf")
    if first.shape != second.shape or not first.size:
        return float("inf")
    largest = float(np.max(np.abs(first - second) / np.maximum(1.0, np.abs(first))))
    return largest if np.isfinite(largest) else float("inf")
