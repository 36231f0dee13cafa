"""A metric as a function of sums over rows, which gives the standard error of any metric of this form.

Accuracy is hits / rows; entity F1 is 2 hits / (predicted + expected); BLEU is a function of n-gram counts; perplexity is a function of
summed log-likelihoods. Leaving out a row or a group is a subtraction, so the delete-one jackknife costs as much as the metric itself.
Imports only numpy, because packaged models use it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A metric: `value` takes the sums of the row statistics named in `sums`, arrays of one shape, and returns the metric in that shape.

    A statistic of (rows, classes) has sums with a last axis of classes, which `value` reduces. `bounds` are the smallest and largest
    possible value; `description` explains the metric to a reader, with its unit. Gates may decide on it if it is `decidable`.
    `estimator` makes a subclass of `components.stats.metric_sets.Jackknife` for this metric only, such as exact intervals of a share.
    `rank` and `hub_type` are read from the metrics of classification only: reports list a lower `rank` first, and `hub_type` is the name on
    the Hugging Face Hub, if that differs.
    """

    sums: tuple[str, ...]
    value: Callable[..., Floats]
    description: str
    bounds: tuple[float, float] = (0.0, 1.0)
    decidable: bool = True
    estimator: Callable[..., Any] | None = None
    rank: int = 2
    hub_type: str = ""

    def of(self, statistics: Mapping[str, Floats]) -> float:
        """Return the metric over all rows of `statistics`, each (rows,) or (rows, classes)."""
        return float(self.value(*(np.asarray(statistics[name], dtype=np.float64).sum(axis=0) for name in self.sums)))


def ratio(above: Floats, below: Floats) -> Floats:
    """Return above / below, 0 where `below` is 0."""
    above, below = np.broadcast_arrays(np.asarray(above, dtype=np.float64), np.asarray(below, dtype=np.float64))
    return np.asarray(np.divide(above, below, out=np.zeros(above.shape), where=below != 0), dtype=np.float64)


def f1(hits: Floats, predicted: Floats, expected: Floats) -> Floats:
    """Return 2 hits / (predicted + expected), the harmonic mean of precision and recall; 0 where nothing is predicted or expected."""
    return ratio(2 * np.asarray(hits), np.asarray(predicted) + np.asarray(expected))


def mean(name: str, description: str, bounds: tuple[float, float] = (0.0, 1.0), **more: Any) -> Metric:
    """Return the mean over rows of the statistic `name`; `rows` must be 1 for every row. `more` are further fields of `Metric`."""
    return Metric((name, "rows"), ratio, description, bounds, **more)


def correlation(y: Floats, z: Floats, yy: Floats, zz: Floats, yz: Floats, rows: Floats) -> Floats:
    """Return Pearson's correlation from sums of two variables, their squares and product; 0 if either side is constant."""
    y_spread, z_spread = np.asarray(yy - ratio(np.asarray(y) ** 2, rows)), np.asarray(zz - ratio(np.asarray(z) ** 2, rows))
    varied = (y_spread > 1e-12 * np.maximum(yy, 1e-300)) & (z_spread > 1e-12 * np.maximum(zz, 1e-300))
    covariance = np.asarray(yz - ratio(np.asarray(y) * np.asarray(z), rows))
    return np.where(varied, np.clip(ratio(covariance, np.sqrt(np.maximum(y_spread * z_spread, 0.0))), -1.0, 1.0), 0.0)
