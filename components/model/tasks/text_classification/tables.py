"""Report tables by label and by number; scikit-learn is imported inside the functions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.artifacts.table import ReportTable

Floats = npt.NDArray[np.float64]
Cell = str | float | int | bool | None

MAX_ROWS = 30


@dataclass(frozen=True)
class TableColumn:
    """One label over all rows: expected and predicted (rows,) as bool, and its probability (rows,)."""

    label: str
    expected: npt.NDArray[np.bool_]
    predicted: npt.NDArray[np.bool_]
    probability: Floats


def by_label(title: str, columns: Sequence[TableColumn]) -> ReportTable:
    """Return precision, recall, F1, AUROC and average precision per label (one vs. rest), and their means.

    AUROC and average precision are undefined for labels that no row or every row has; their means leave these out.
    """
    scores = sorted((_scores(column) for column in columns), key=lambda row: (-int(str(row[1])), str(row[0])))
    means = tuple(_mean([row[column] for row in scores]) for column in range(2, 7))
    mean = ("mean over labels", int(sum(column.expected.sum() for column in columns)), *means)
    return ReportTable(
        title=title,
        columns=("label", "rows", "precision", "recall", "F1", "AUROC", "average precision"),
        rows=(mean, *scores[: MAX_ROWS - 1]),
    )


def _scores(column: TableColumn) -> tuple[Cell, ...]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    expected, predicted = column.expected, column.predicted
    hits = int((expected & predicted).sum())
    positive, true = int(predicted.sum()), int(expected.sum())
    scores = (hits / positive if positive else 0.0, hits / true if true else 0.0, 2 * hits / (positive + true) if positive + true else 0.0)
    ranked = 0 < true < len(expected)
    area = float(roc_auc_score(expected, column.probability)) if ranked else None
    precision = float(average_precision_score(expected, column.probability)) if ranked else None
    return (column.label, true, *(round(score, 4) for score in scores), _rounded(area), _rounded(precision))


def _mean(values: Sequence[Cell]) -> float | None:
    numbers = [float(value) for value in values if value is not None]
    return round(float(np.mean(numbers)), 4) if numbers else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def by_number(title: str, parts: Sequence[tuple[str, npt.NDArray[np.bool_]]], expected: Floats, predicted: Floats) -> ReportTable:
    """Return mean answer and mean error for each named, non-empty part of the rows."""
    rows: list[tuple[Cell, ...]] = []
    for name, mask in parts[:MAX_ROWS]:
        if mask.any():
            y, z = expected[mask], predicted[mask]
            means = (float(y.mean()), float(z.mean()), float((z - y).mean()), float(np.abs(z - y).mean()))
            rows.append((name, int(mask.sum()), *(round(value, 4) for value in means)))
    columns = ("part", "rows", "mean expected", "mean predicted", "mean error", "mean absolute error")
    return ReportTable(title=title, columns=columns, rows=tuple(rows))
