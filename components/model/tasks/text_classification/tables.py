"""Report tables by label and by number; scikit-learn is imported inside the functions."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from components.artifacts.table import ReportTable
from components.model.support.metrics import Floats

Bools = npt.NDArray[np.bool_]
Cell = str | float | int | bool | None

MAX_ROWS = 30


def by_label(labels: Sequence[str], expected: Bools, predicted: Bools, probabilities: Floats) -> ReportTable:
    """Return precision, recall, F1, AUROC and average precision per label (one vs. rest), and their means; arrays are (rows, labels).

    AUROC and average precision are undefined for labels that no row or every row has; their means leave these out.
    """
    columns = zip(labels, expected.T, predicted.T, probabilities.T, strict=True)
    scores = sorted((_scores(*column) for column in columns), key=lambda row: (-int(str(row[1])), str(row[0])))
    means = tuple(_mean([row[column] for row in scores]) for column in range(2, 7))
    return ReportTable(
        title="Labels, the most common first",
        columns=("label", "rows", "precision", "recall", "F1", "AUROC", "average precision"),
        rows=(("mean over labels", int(expected.sum()), *means), *scores[: MAX_ROWS - 1]),
    )


def _scores(label: str, expected: Bools, predicted: Bools, probability: Floats) -> tuple[Cell, ...]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    hits, positive, true = (int(mask.sum()) for mask in (expected & predicted, predicted, expected))
    scores = (hits / positive if positive else 0.0, hits / true if true else 0.0, 2 * hits / (positive + true) if positive + true else 0.0)
    ranked = 0 < true < len(expected)
    areas = [round(float(area(expected, probability)), 4) if ranked else None for area in (roc_auc_score, average_precision_score)]
    return (label, true, *(round(score, 4) for score in scores), *areas)


def _mean(values: Sequence[Cell]) -> float | None:
    numbers = [float(value) for value in values if value is not None]
    return round(float(np.mean(numbers)), 4) if numbers else None


def by_number(title: str, parts: Sequence[tuple[str, Bools]], expected: Floats, predicted: Floats) -> ReportTable:
    """Return mean answer and mean error for each named, non-empty part of the rows."""
    rows: list[tuple[Cell, ...]] = []
    for name, mask in parts[:MAX_ROWS]:
        if mask.any():
            y, z = expected[mask], predicted[mask]
            means = (float(y.mean()), float(z.mean()), float((z - y).mean()), float(np.abs(z - y).mean()))
            rows.append((name, int(mask.sum()), *(round(value, 4) for value in means)))
    columns = ("part", "rows", "mean expected", "mean predicted", "mean error", "mean absolute error")
    return ReportTable(title=title, columns=columns, rows=tuple(rows))
