"""The independent units of a test set: its groups if groups have several rows, else its rows."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy

from components.artifacts.metrics import MIN_GROUPS, Estimate

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Units:
    """The unit of each row: `index` is (rows,), with values from 0 to `count` - 1."""

    index: Ints
    count: int

    @classmethod
    def from_groups(cls, groups: npt.ArrayLike) -> "Units":
        """Build the units from the group names of the rows; if each row is its own group, the rows are the units."""
        names, index = np.unique(np.asarray(groups), return_inverse=True)
        return cls(index.astype(np.int64).reshape(-1), len(names))

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.index)

    @property
    def grouped(self) -> bool:
        """Whether any group has several rows."""
        return self.count < self.rows

    @cached_property
    def sizes(self) -> Floats:
        """The number of rows of each unit."""
        return self.sums(np.ones(self.rows))

    def sums(self, values: npt.ArrayLike) -> Floats:
        """Return the sum of `values`, (rows,) or (rows, columns), in each unit."""
        array = np.asarray(values, dtype=np.float64)
        if array.ndim > 1:
            return np.stack([self.sums(column) for column in array.T], axis=1)
        return np.bincount(self.index, weights=array, minlength=self.count).astype(np.float64)

    def mean_variance(self, values: Floats) -> float:
        """Return the delete-one-unit jackknife variance of the mean of `values` (rows,); of at least two units."""
        left_out = (values.sum() - self.sums(values)) / (self.rows - self.sizes)
        return jackknife_variance(float(values.mean()), left_out)

    @property
    def doubt(self) -> str | None:
        """Why gates may not decide on intervals over these units; None if they may."""
        if self.grouped and self.count < MIN_GROUPS:
            return f"the test set has {self.count} groups; an interval needs at least {MIN_GROUPS} groups"
        return None

    def critical(self, confidence: float) -> float:
        """Return the two-sided critical value: t with units - 1 degrees of freedom for groups, normal for rows."""
        upper = (1 + confidence) / 2
        return float(scipy.special.stdtrit(max(self.count - 1, 1), upper) if self.grouped else scipy.special.ndtri(upper))


def jackknife_variance(value: float, left_out: Floats) -> float:
    """Return the delete-one variance of `value` from its `left_out` replicates (units,), 0 for a single unit.

    (G - 1) / G times the sum of squared distances to the full estimate, not to the mean of the replicates: CV3 of MacKinnon,
    Nielsen and Webb (2023), arXiv 2301.04527, eq. 7, which is never the smaller of the two.
    """
    return float((len(left_out) - 1) / len(left_out) * np.sum((left_out - value) ** 2))


def symmetric(value: float, half_width: float, bounds: tuple[float, float], **rest: object) -> Estimate:
    """Return the estimate `value` ± `half_width`, cut to `bounds`."""
    return between(value, max(value - half_width, bounds[0]), min(value + half_width, bounds[1]), **rest)


def between(value: float, low: float, high: float, **rest: object) -> Estimate:
    """Return the estimate with low <= value <= high, free of rounding errors."""
    return Estimate.model_validate({"value": value, "low": min(low, value), "high": max(high, value), **rest})
