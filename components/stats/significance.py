"""One-sided p-values that match the intervals, Holm's correction, and power calculations.

The null hypothesis is "not worse": p is small if the data show that a score or a difference is below a threshold.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import scipy

from components.artifacts.metrics import Estimate
from components.stats.units import Bools, Floats, Units

POWER = 0.8


def mcnemar(gained: int, lost: int) -> float:
    """Return the one-sided mid-p of `gained` or fewer of the discordant rows: is the first model worse?

    Exact binomial minus half the probability of the observation (Fagerland, Lydersen and Laake 2013, BMC Med Res Methodol 13:91);
    1 without discordant rows. With D discordant rows it is at least 2^-(D+1).
    """
    if not (discordant := gained + lost):
        return 1.0
    return float(scipy.stats.binom.cdf(gained, discordant, 0.5) - 0.5 * scipy.stats.binom.pmf(gained, discordant, 0.5))


def mcnemar_two_sided(gained: int, lost: int) -> float:
    """Return the two-sided mid-p: the exact p minus the probability of the observation; tests for a difference, not for a margin."""
    if not (discordant := gained + lost):
        return 1.0
    exact = float(scipy.stats.binomtest(gained, discordant, 0.5).pvalue)
    return float(np.clip(exact - scipy.stats.binom.pmf(gained, discordant, 0.5), 0, 1))


def share_below(right: npt.ArrayLike, threshold: float, effective: float) -> float:
    """Return the p that the share of `right` rows is at least `threshold`: Clopper and Pearson's, on `effective` rows."""
    value = float(np.mean(np.asarray(right, dtype=np.float64)))
    if value >= 1:
        return 1.0
    hits = value * effective
    return float(scipy.stats.beta.sf(threshold, hits + 1, effective - hits))


def fewer_right(right: npt.ArrayLike, other: npt.ArrayLike, units: Units) -> float:
    """Return the p that `right` is right on as many rows as `other`: mid-p McNemar, by groups the jackknife with t(G - 1)."""
    first, second = np.asarray(right, dtype=bool), np.asarray(other, dtype=bool)
    if not units.grouped:
        return mcnemar(int(np.sum(first & ~second)), int(np.sum(second & ~first)))
    return mean_below(first.astype(np.float64) - second.astype(np.float64), units)


def tango_below(gained: float, lost: float, rows: float, threshold: float, units: Units) -> float:
    """Return the p of Tango's score test (1998, Statistics in Medicine 17:891) that the difference is at least `threshold`."""
    linear = -gained - lost + (2 * rows - gained + lost) * threshold
    root = np.sqrt(max(linear**2 + 8 * rows * lost * threshold * (1 - threshold), 0.0))
    share = (root - linear) / (4 * rows)
    deviation = np.sqrt(max(rows * (2 * share + threshold * (1 - threshold)), 0.0))
    return _lower_tail(gained - lost - rows * threshold, float(deviation), units)


def mean_below(values: npt.ArrayLike, units: Units, threshold: float = 0.0) -> float:
    """Return the p that the mean of `values` (rows,) is at least `threshold`: Student's t, by groups the delete-one-group jackknife's."""
    array = np.asarray(values, dtype=np.float64)
    value = float(array.mean())
    if units.count < 2:
        return 1.0
    error = float(np.sqrt(units.mean_variance(array)))
    if error < 1e-12:  # no variation: only as certain as with one contrary unit added
        return 1.0 if value >= threshold - 1e-12 else float(0.5**units.count)
    return float(scipy.special.stdtr(units.count - 1, (value - threshold) / error))


def estimate_below(value: float, error: float, threshold: float, units: Units) -> float:
    """Return the p that a quantity with this estimate and standard error is at least `threshold`: t by groups, else normal."""
    return _lower_tail(value - threshold, error, units)


def holm(values: Sequence[float]) -> Floats:
    """Return the adjusted p-values (tests,): Holm (1979), Scandinavian Journal of Statistics 6:65. The tests may depend on each other."""
    p = np.asarray(values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def standard_error(estimate: Estimate, units: Units) -> float:
    """Return the standard error that corresponds to the half width of an interval."""
    return (estimate.high - estimate.low) / 2 / units.critical(estimate.confidence)


def minimum_detectable(error: float, level: float, power: float = POWER) -> float:
    """Return the smallest true difference that a one-sided test at `level` detects with `power`, in the unit of the metric."""
    return _z_sum(level, power) * error


def units_needed(estimate: Estimate, units: Units, margin: float, level: float, power: float = POWER) -> int | None:
    """Return the test units for a PASS with `power`, None if the difference already exceeds the margin.

    With a margin, for models that are truly equal; with margin 0, where an equal model must not pass, for a true difference as large
    as the estimate. n = (z_level + z_power)² · variance of one unit / margin² (or difference²): for accuracy the variance is the
    share of discordant rows.
    """
    if estimate.value <= -margin:
        return None
    spread = standard_error(estimate, units) ** 2 * estimate.n
    return int(np.ceil(_z_sum(level, power) ** 2 * spread / (margin or estimate.value) ** 2))


def difference_of_shares(first: Bools, second: Bools) -> tuple[float, float]:
    """Return the difference of the shares of two independent samples and its standard error.

    With one pseudo-row of each outcome in both: Agresti and Caffo (2000), The American Statistician 54:280.
    """
    shares = [(float(np.sum(sample)) + 1) / (len(sample) + 2) for sample in (first, second)]
    error = np.sqrt(sum(share * (1 - share) / (len(sample) + 2) for share, sample in zip(shares, (first, second), strict=True)))
    return shares[0] - shares[1], float(error)


def _z_sum(level: float, power: float) -> float:
    return float(scipy.special.ndtri(1 - level) + scipy.special.ndtri(power))


def _lower_tail(distance: float, error: float, units: Units) -> float:
    if error < 1e-15:
        return 1.0 if distance >= -1e-15 else 0.0
    score = distance / error
    return float(scipy.special.stdtr(max(units.count - 1, 1), score) if units.grouped else scipy.special.ndtr(score))
