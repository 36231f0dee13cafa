"""What is worth reading of each label, as on a page; scikit-learn is imported inside."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.artifacts.table import ReportTable

Floats = npt.NDArray[np.float64]
Cell = str | float | int | bool | None

MOST = 30
"""Rows of a table."""


@dataclass(frozen=True)
class TableColumn:
    """One label over all rows: whether it is expected and predicted, each (rows,) of bool, and its probability (rows,)."""

    label: str
    expected: npt.NDArray[np.bool_]
    predicted: npt.NDArray[np.bool_]
    probability: Floats


def by_label(title: str, columns: Sequence[TableColumn]) -> ReportTable:
    """Return precision, recall, F1, AUROC and average precision of each label against all others, and their means.

    A label that no row has, or every row, has neither of the last two and no part in their means.
    """
    found = sorted((_scores(column) for column in columns), key=lambda row: (-int(str(row[1])), str(row[0])))
    means = tuple(_mean([row[place] for row in found]) for place in range(2, 7))
    whole = ("mean over labels", int(sum(column.expected.sum() for column in columns)), *means)
    return ReportTable(
        title=title,
        columns=("label", "rows", "precision", "recall", "F1", "AUROC", "average precision"),
        rows=(whole, *found[: MOST - 1]),
    )


def _scores(column: TableColumn) -> tuple[Cell, ...]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    expected, predicted = column.expected, column.predicted
    hits = int((expected & predicted).sum())
    among, of = int(predicted.sum()), int(expected.sum())
    parts = (hits / among if among else 0.0, hits / of if of else 0.0, 2 * hits / (among + of) if among + of else 0.0)
    ranked = 0 < of < len(expected)
    area = float(roc_auc_score(expected, column.probability)) if ranked else None
    precision = float(average_precision_score(expected, column.probability)) if ranked else None
    return (column.label, of, *(round(part, 4) for part in parts), _rounded(area), _rounded(precision))


def _mean(values: Sequence[Cell]) -> float | None:
    numbers = [float(value) for value in values if value is not None]
    return round(float(np.mean(numbers)), 4) if numbers else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def by_number(title: str, parts: Sequence[tuple[str, npt.NDArray[np.bool_]]], expected: Floats, predicted: Floats) -> ReportTable:
    """Return the mean answer and the mean distance from what is expected, in each named part of the rows that has any."""
    rows: list[tuple[Cell, ...]] = []
    for name, mask in parts[:MOST]:
        if mask.any():
            y, z = expected[mask], predicted[mask]
            means = (float(y.mean()), float(z.mean()), float((z - y).mean()), float(np.abs(z - y).mean()))
            rows.append((name, int(mask.sum()), *(round(value, 4) for value in means)))
    columns = ("part", "rows", "mean expected", "mean predicted", "mean error", "mean absolute error")
    return ReportTable(title=title, columns=columns, rows=tuple(rows))
