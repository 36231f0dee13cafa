"""The paired percentile bootstrap: a second opinion beside an interval; it never decides, since it does not hold its level everywhere."""

import numpy as np
import numpy.typing as npt

from components.stats.scores import Truth
from components.stats.units import Floats, Ints

DRAWS = 2_000
_AT_ONCE = 200  # draws whose weights are held at the same time


def percentile_bootstrap(
    metric: str, truth: Truth, predicted: npt.NDArray[np.str_], other: npt.NDArray[np.str_], confidence: float, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile interval of the paired difference of `metric` (accuracy or macro_f1) over resampled test units.

    Groups are drawn whole where there are groups. Rows that both models answer alike are drawn together, as the multinomial
    count of their kind, which is the same bootstrap at a fraction of the cost.
    """
    mine, theirs = truth.encode(predicted), truth.encode(other)
    counts, multiplicity = _kinds(truth, mine, theirs)
    generator, draws = np.random.default_rng(seed), []
    units = int(multiplicity.sum())
    for _ in range(DRAWS // _AT_ONCE):
        weights = generator.multinomial(units, multiplicity / units, size=_AT_ONCE) / multiplicity
        draws.append(_difference(metric, truth, weights @ counts))
    low, high = np.quantile(np.concatenate(draws), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _kinds(truth: Truth, mine: Ints, theirs: Ints) -> tuple[Floats, Floats]:
    """Return the counts of each kind of unit (kinds, 5 · classes), and how many units are of that kind (kinds,).

    The counts are, a class each: expected, predicted and hit by the one, predicted and hit by the other.
    """
    classes = len(truth.labels)
    if truth.units.grouped:
        index, multiplicity = truth.units.index, np.ones(truth.units.count)
    else:
        _, index, amounts = np.unique(np.stack([truth.expected, mine, theirs]), axis=1, return_inverse=True, return_counts=True)
        index, multiplicity = index.reshape(-1), amounts.astype(np.float64)
    places = [truth.expected, mine, np.where(mine == truth.expected, mine, -1), theirs, np.where(theirs == truth.expected, theirs, -1)]
    counts = [
        np.bincount(index[place >= 0] * classes + place[place >= 0], minlength=len(multiplicity) * classes).reshape(-1, classes)
        for place in places
    ]
    return np.concatenate(counts, axis=1).astype(np.float64), multiplicity


def _difference(metric: str, truth: Truth, sums: Floats) -> Floats:
    """Return the difference in each draw (draws,) from its summed counts (draws, 5 · classes)."""
    expected, predicted, hits, others, other_hits = np.moveaxis(sums.reshape(len(sums), 5, -1), 1, 0)
    if metric == "accuracy":
        return np.asarray((hits.sum(axis=1) - other_hits.sum(axis=1)) / expected.sum(axis=1), dtype=np.float64)
    chosen = truth.eligible if truth.eligible.any() else np.ones(len(truth.labels), dtype=np.bool_)
    gap = _f1(expected, predicted, hits) - _f1(expected, others, other_hits)
    return np.asarray(gap[:, chosen].mean(axis=1), dtype=np.float64)


def _f1(expected: Floats, predicted: Floats, hits: Floats) -> Floats:
    total = expected + predicted
    return np.divide(2 * hits, total, out=np.zeros_like(total), where=total > 0)
