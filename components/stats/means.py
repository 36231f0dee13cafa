"""Means of bounded values, such as Brier scores: of one model, and the paired difference of two models."""

import numpy as np
import numpy.typing as npt
import scipy

from components.artifacts.metrics import Estimate
from components.stats.units import Units, between, symmetric


def mean(values: npt.ArrayLike, units: Units, bounds: tuple[float, float], confidence: float = 0.95) -> Estimate:
    """Return the mean of `values` (rows,) within `bounds`, with Student's t interval.

    Groups: the delete-one-group jackknife of the mean and t(G - 1); for rows that is Student's interval itself.
    If all units are equal, the share of units that might differ is bounded by 1 - tail^(1/units) (Clopper and Pearson
    at zero successes), and each of them is within `bounds`.
    """
    array = np.asarray(values, dtype=np.float64)
    value, count = float(array.mean()), units.count
    method = f"delete-one-group jackknife, t({count - 1})" if units.grouped else f"Student's t({count - 1})"
    rest = {"n": count, "method": method, "confidence": confidence, "doubt": units.doubt}
    error = float(np.sqrt(units.mean_variance(array))) if count > 1 else 0.0
    if error > 1e-12:
        return symmetric(value, float(scipy.stats.t.ppf((1 + confidence) / 2, count - 1)) * error, bounds, **rest)
    share = 1 - ((1 - confidence) / 2) ** (1 / count)
    return between(value, value - share * (value - bounds[0]), value + share * (bounds[1] - value), **rest)


def mean_difference(
    values: npt.ArrayLike, others: npt.ArrayLike, units: Units, bounds: tuple[float, float], confidence: float = 0.95
) -> Estimate:
    """Return the mean of `values` minus the mean of `others`, paired by row; both are within `bounds`."""
    width = bounds[1] - bounds[0]
    return mean(np.asarray(values) - np.asarray(others), units, (-width, width), confidence)
