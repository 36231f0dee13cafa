"""Answers that are numbers: how they are written, and metrics over pairs of numbers as functions of sums over rows."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from components.model.support.metrics import Metric, ratio

Floats = npt.NDArray[np.float64]

_INF = math.inf
_DIGITS = 5
"""Significant digits of an answer: fewer than float32 holds, so that rounding in a batch of another shape rarely shows."""


def parse(cell: str) -> float:
    """Return the number in a cell; ValueError says that there is none."""
    try:
        number = float(cell)
    except ValueError:
        raise ValueError("label is not a number, with a point before its decimals") from None
    if not math.isfinite(number):
        raise ValueError("label is not a finite number")
    return number


def text(number: float) -> str:
    """Return a number as a label: in full, whole ones without decimals."""
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def answer(number: float) -> str:
    """Return a number as an answer, to five significant digits."""
    return text(float(f"{number:.{_DIGITS}g}"))


def sums(expected: Floats, predicted: Floats) -> Mapping[str, Floats]:
    """Return what the measures here sum up, of pairs of numbers, each (rows,).

    Both are taken from the mean of what is expected, which changes no metric and keeps digits. Ranks, the mean one for equal numbers,
    are those among all rows: Spearman's correlation of these rows is exact, one of fewer rows keeps their ranks.
    """
    from scipy.stats import rankdata

    centre = expected.mean() if len(expected) else 0.0
    y, z = expected - centre, predicted - centre
    r, s = (rankdata(each) - (len(each) + 1) / 2 for each in (expected, predicted))
    return {
        **{"rows": np.ones(len(y)), "y": y, "z": z, "yy": y * y, "zz": z * z, "yz": y * z},
        **{"squared": (y - z) ** 2, "absolute": np.abs(y - z)},
        **{"r": r, "s": s, "rr": r * r, "ss": s * s, "rs": r * s},
    }


def explained(squared: Floats, y: Floats, yy: Floats, rows: Floats) -> Floats:
    """Return 1 - squared errors / squared distances from the mean; 0 where all expected numbers are equal."""
    spread = np.asarray(yy - ratio(np.asarray(y) ** 2, rows))
    return np.where(spread > 1e-12 * np.maximum(yy, 1e-300), 1 - ratio(squared, spread), 0.0)


def correlation(y: Floats, z: Floats, yy: Floats, zz: Floats, yz: Floats, rows: Floats) -> Floats:
    """Return Pearson's correlation; 0 where either side has one number only."""
    one, other = np.asarray(yy - ratio(np.asarray(y) ** 2, rows)), np.asarray(zz - ratio(np.asarray(z) ** 2, rows))
    apart = (one > 1e-12 * np.maximum(yy, 1e-300)) & (other > 1e-12 * np.maximum(zz, 1e-300))
    together = np.asarray(yz - ratio(np.asarray(y) * np.asarray(z), rows))
    return np.where(apart, np.clip(ratio(together, np.sqrt(np.maximum(one * other, 0.0))), -1.0, 1.0), 0.0)


def kappa(squared: Floats, y: Floats, z: Floats, yy: Floats, zz: Floats, rows: Floats) -> Floats:
    """Return quadratic weighted kappa (Cohen, 1968): 1 - squared distances / those expected of independent answers.

    The latter sum to Σy² + Σz² - 2 Σy Σz / n over all pairs of rows. 1 where both sides are one and the same number.
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
    """Return for each value which quarter of the values it is in, from 0; equal values are in one."""
    if not len(values):
        return []
    edges = np.quantile(np.asarray(values, dtype=np.float64), (0.25, 0.5, 0.75))
    return [int(place) for place in np.searchsorted(edges, values, side="left")]
