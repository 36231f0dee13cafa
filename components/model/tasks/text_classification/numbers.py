"""Numeric answers: their text format, and metrics as functions of sums over rows."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from components.model.support.metrics import Floats, Metric, correlation, ratio

_INF = math.inf
_DIGITS = 5
"""Significant digits of an answer: fewer than in float32, so that the batch shape rarely changes an answer."""


def parse(cell: str) -> float:
    """Return the number in a cell; raise ValueError if there is none."""
    try:
        number = float(cell)
    except ValueError:
        raise ValueError("label is not a number (with a decimal point)") from None
    if not math.isfinite(number):
        raise ValueError("label is not a finite number")
    return number


def text(number: float) -> str:
    """Format a number as a label: exact, whole numbers without decimals."""
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def answer(number: float) -> str:
    """Format a number as an answer, with five significant digits."""
    return text(float(f"{number:.{_DIGITS}g}"))


def sums(expected: Floats, predicted: Floats) -> Mapping[str, Floats]:
    """Return the row statistics of the metrics in this module, each (rows,).

    Both columns are shifted by the expected mean, which changes no metric and keeps precision. Ranks (ties share the mean rank) are
    among all rows: Spearman's correlation is exact for all rows; a subset keeps its ranks.
    """
    from scipy.stats import rankdata

    centre = expected.mean() if len(expected) else 0.0
    y, z = expected - centre, predicted - centre
    r, s = (rankdata(values) - (len(values) + 1) / 2 for values in (expected, predicted))
    return {
        **{"rows": np.ones(len(y)), "y": y, "z": z, "yy": y * y, "zz": z * z, "yz": y * z},
        **{"squared": (y - z) ** 2, "absolute": np.abs(y - z)},
        **{"r": r, "s": s, "rr": r * r, "ss": s * s, "rs": r * s},
    }


def explained(squared: Floats, y: Floats, yy: Floats, rows: Floats) -> Floats:
    """Return R²: 1 - squared errors / squared distances from the mean; 0 if all expected numbers are equal."""
    spread = np.asarray(yy - ratio(np.asarray(y) ** 2, rows))
    return np.where(spread > 1e-12 * np.maximum(yy, 1e-300), 1 - ratio(squared, spread), 0.0)


def kappa(squared: Floats, y: Floats, z: Floats, yy: Floats, zz: Floats, rows: Floats) -> Floats:
    """Return quadratic weighted kappa (Cohen, 1968): 1 - squared distances / squared distances expected by chance.

    Chance is Σy² + Σz² - 2 Σy Σz / n, over all pairs of rows. The result is 1 if both sides are the same constant.
    """
    chance = np.asarray(yy + zz - ratio(2 * np.asarray(y) * np.asarray(z), rows))
    return np.where(chance > 1e-12, 1 - ratio(squared, chance), 1.0)


def negative(total: Floats, rows: Floats) -> Floats:
    """Return minus the mean."""
    return -ratio(total, rows)


R2 = Metric(("squared", "y", "yy", "rows"), explained, "share of the variance that is explained; 0: no better than the mean", (-_INF, 1.0))
NEG_MSE = Metric(("squared", "rows"), negative, "minus the mean squared error, in the label's unit squared", (-_INF, 0.0))
NEG_MAE = Metric(("absolute", "rows"), negative, "minus the mean absolute error, in the label's unit or in levels", (-_INF, 0.0))
PEARSON = Metric(("y", "z", "yy", "zz", "yz", "rows"), correlation, "linear correlation", (-1.0, 1.0))
SPEARMAN = Metric(("r", "s", "rr", "ss", "rs", "rows"), correlation, "correlation of the ranks among all test rows", (-1.0, 1.0))
KAPPA = Metric(("squared", "y", "z", "yy", "zz", "rows"), kappa, "agreement beyond chance, by squared distance of the levels", (-1.0, 1.0))


def quarters(values: Sequence[float]) -> list[int]:
    """Return the quartile (0 to 3) of each value; equal values share a quartile."""
    if not len(values):
        return []
    edges = np.quantile(np.asarray(values, dtype=np.float64), (0.25, 0.5, 0.75))
    return [int(index) for index in np.searchsorted(edges, values, side="left")]
