"""The paired percentile bootstrap: shown next to an interval, but never decisive, since it does not keep its level everywhere."""

import numpy as np
import numpy.typing as npt

from components.stats.f1 import ClassCounts
from components.stats.metric_sets import CountsDifference
from components.stats.true_classes import TrueClasses
from components.stats.units import Floats, Ints

DRAWS = 2_000
_AT_ONCE = 200  # draws whose weights are in memory at the same time


def percentile_bootstrap(
    difference: CountsDifference,
    truth: TrueClasses,
    predicted: npt.NDArray[np.str_],
    other: npt.NDArray[np.str_],
    confidence: float,
) -> tuple[float, float]:
    """Return the percentile interval of the paired `difference` of a class metric over resampled test units.

    Groups are drawn as a whole. Rows with the same expected label and answers are drawn together, as the multinomial count of
    their type: the same bootstrap at a fraction of the cost.
    """
    counts, multiplicity = _unit_types(truth, truth.encode(predicted), truth.encode(other))
    generator, draws = np.random.default_rng(0), []
    units = int(multiplicity.sum())
    for _ in range(DRAWS // _AT_ONCE):
        weights = generator.multinomial(units, multiplicity / units, size=_AT_ONCE) / multiplicity
        expected, predicted_rows, hits, others, other_hits = np.moveaxis((weights @ counts).reshape(_AT_ONCE, 5, -1), 1, 0)
        draws.append(difference(ClassCounts(hits, expected, predicted_rows), ClassCounts(other_hits, expected, others)))
    low, high = np.quantile(np.concatenate(draws), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _unit_types(truth: TrueClasses, predicted: Ints, other: Ints) -> tuple[Floats, Floats]:
    """Return the counts of each type of unit (types, 5 · classes), and the number of units of each type (types,).

    The counts are, per class: expected, predicted, hits of `predicted`, then predicted and hits of `other`.
    """
    classes = len(truth.labels)
    if truth.units.grouped:
        index, multiplicity = truth.units.index, np.ones(truth.units.count)
    else:
        _, index, amounts = np.unique(np.stack([truth.expected, predicted, other]), axis=1, return_inverse=True, return_counts=True)
        index, multiplicity = index.reshape(-1), amounts.astype(np.float64)
    labels = [truth.expected]
    for answers in (predicted, other):
        labels += [answers, np.where(answers == truth.expected, answers, -1)]
    counts = [
        np.bincount(index[label >= 0] * classes + label[label >= 0], minlength=len(multiplicity) * classes).reshape(-1, classes)
        for label in labels
    ]
    return np.concatenate(counts, axis=1).astype(np.float64), multiplicity
