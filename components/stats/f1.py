"""F1 over a fixed list of classes: of one model, and the paired difference of two models on the same rows.

Labels are indexes in the label list; -1 is a label outside the list and never right. The F1 of a class without a true
positive is 0. The averaged classes are chosen before measuring, are the same for both models, and do not change when rows
are left out. The estimated quantity is the F1 at the class frequencies of this test set, since F1 depends on them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy

from components.artifacts.metrics import Estimate
from components.stats.units import Bools, Floats, Ints, Units, jackknife_variance, symmetric

Average = Literal["macro", "micro", "weighted"]
_PSEUDO_ROWS = 2


@dataclass(frozen=True)
class ClassCounts:
    """True positives, expected and predicted rows; all of the same shape, such as (classes,)."""

    hits: Floats
    expected: Floats
    predicted: Floats

    @property
    def f1(self) -> Floats:
        """F1 = 2 tp / (expected + predicted), 0 if nothing is expected or predicted."""
        total = self.expected + self.predicted
        return np.divide(2 * self.hits, total, out=np.zeros_like(total), where=total > 0)


# Each average is the sum of the first function over classes, divided by the sum of the second.
_AVERAGES: dict[Average, tuple[Callable[[ClassCounts], Floats], Callable[[ClassCounts], Floats]]] = {
    "macro": (lambda c: c.f1, lambda c: np.ones_like(c.hits)),
    "micro": (lambda c: 2 * c.hits, lambda c: c.expected + c.predicted),
    "weighted": (lambda c: c.expected * c.f1, lambda c: c.expected),
}


def class_counts(expected: Ints, predicted: Ints, classes: int) -> ClassCounts:
    """Return the counts of each of `classes` classes, shape (classes,)."""
    return ClassCounts(
        *(np.bincount(a[a >= 0], minlength=classes).astype(np.float64) for a in (expected[expected == predicted], expected, predicted))
    )


def f1_value(expected: Ints, predicted: Ints, chosen: Bools, average: Average = "macro") -> float:
    """Return the averaged F1 over the `chosen` classes (classes,)."""
    counts = class_counts(expected, predicted, len(chosen))
    above, below = (float(np.sum(part(counts)[chosen])) for part in _AVERAGES[average])
    return above / below if below else 0.0


def f1(expected: Ints, predicted: Ints, chosen: Bools, units: Units, average: Average = "macro", confidence: float = 0.95) -> Estimate:
    """Return the averaged F1 over the `chosen` classes with its interval, cut to 0 … 1.

    Macro over rows: linearised standard error (Takahashi et al. 2022, PMC8936911) with two pseudo-rows added to the wrong ones.
    Otherwise: the delete-one jackknife on the counts, by group if rows are grouped, with t(units - 1).
    """
    value = f1_value(expected, predicted, chosen, average)
    if average == "macro" and not units.grouped:
        error = _linearised_error(f1_influence(expected, predicted, chosen), expected != predicted)
        method, critical = "linearised standard error with 2 pseudo-rows", units.critical(confidence)
    else:
        error = np.sqrt(jackknife_variance(value, f1_left_out(expected, predicted, chosen, units, average)))
        method, critical = _jackknife(units, confidence)
    half_width = critical * float(error) or _no_variation_width(_weights(expected, predicted, chosen), units, critical)
    return symmetric(value, half_width, (0.0, 1.0), n=units.count, method=method, confidence=confidence, doubt=units.doubt)


def f1_difference(expected: Ints, predicted: Ints, other: Ints, chosen: Bools, units: Units, confidence: float = 0.95) -> Estimate:
    """Return the macro-F1 of `predicted` minus that of `other` over the `chosen` classes, paired by row.

    Rows: linearised standard error with two pseudo-rows added to the discordant ones (after Agresti and Min
    2005, Statistics in Medicine 24:729). Groups: the delete-one-group jackknife of the difference with t(G - 1).
    """
    value, error = f1_difference_error(expected, predicted, other, chosen, units)
    if units.grouped:
        method, critical = _jackknife(units, confidence)
    else:
        method, critical = "paired linearised standard error with 2 pseudo-rows", units.critical(confidence)
    weights = (_weights(expected, predicted, chosen) + _weights(expected, other, chosen)) / 2
    half_width = critical * error or _no_variation_width(weights, units, critical)
    return symmetric(value, half_width, (-1.0, 1.0), n=units.count, method=method, confidence=confidence, doubt=units.doubt)


def f1_difference_error(expected: Ints, predicted: Ints, other: Ints, chosen: Bools, units: Units) -> tuple[float, float]:
    """Return the difference of the two macro-F1 and its standard error, 0 if the data show no variation."""
    value = f1_value(expected, predicted, chosen) - f1_value(expected, other, chosen)
    if units.grouped:
        replicates = f1_left_out(expected, predicted, chosen, units) - f1_left_out(expected, other, chosen, units)
        return value, float(np.sqrt(jackknife_variance(value, replicates)))
    influence = f1_influence(expected, predicted, chosen) - f1_influence(expected, other, chosen)
    return value, _linearised_error(influence, predicted != other)


def f1_influence(expected: Ints, predicted: Ints, chosen: Bools) -> Floats:
    """Return the first-order influence of each row on macro-F1 (rows,); the sum is 0.

    With D_k = expected + predicted rows of class k, K chosen classes, y expected and a predicted:
    (1/K) [2 · 1(y = a) / D_y - F_y / D_y - F_a / D_a], the derivative of 2 tp / D in its counts.
    """
    counts = class_counts(expected, predicted, len(chosen))
    total = np.maximum(counts.expected + counts.predicted, 1)
    share = chosen / (total * max(int(chosen.sum()), 1))
    gain, loss = np.append(2 * share, 0.0), np.append(counts.f1 * share, 0.0)  # the last entry is for -1
    return np.asarray(np.where(expected == predicted, gain[expected], 0.0) - loss[expected] - loss[predicted], dtype=np.float64)


def f1_left_out(expected: Ints, predicted: Ints, chosen: Bools, units: Units, average: Average = "macro") -> Floats:
    """Return the averaged F1 with each unit left out in turn (units,).

    Exact, in linear time: leaving a unit out changes only the classes that occur in it.
    """
    classes = len(chosen)
    whole = class_counts(expected, predicted, classes)
    kept = [a >= 0 for a in (expected, predicted)]
    keys = [units.index[k] * classes + a[k] for a, k in zip((expected, predicted), kept, strict=True)]
    cells, cell_index = np.unique(np.concatenate(keys), return_inverse=True)
    unit, label = np.divmod(cells, classes)
    first, second = cell_index[: len(keys[0])], cell_index[len(keys[0]) :]
    hit = (expected == predicted)[kept[0]]
    within = ClassCounts(*(np.bincount(p, minlength=len(cells)).astype(np.float64) for p in (first[hit], first, second)))
    rest = ClassCounts(*(getattr(whole, name)[label] - getattr(within, name) for name in ("hits", "expected", "predicted")))
    sums = []
    for part in _AVERAGES[average]:
        change = np.where(chosen[label], part(rest) - part(whole)[label], 0.0)
        sums.append(float(np.sum(part(whole)[chosen])) + np.bincount(unit, weights=change, minlength=units.count))
    return np.asarray(np.divide(sums[0], sums[1], out=np.zeros(units.count), where=sums[1] > 1e-12), dtype=np.float64)


def _linearised_error(influence: Floats, decisive: Bools) -> float:
    """Return the root of the summed squares, with two pseudo-rows added to the `decisive` rows."""
    squares = influence**2
    count = int(decisive.sum())
    extra = _PSEUDO_ROWS * float(squares[decisive].sum()) / count if count else 0.0
    return float(np.sqrt(squares.sum() + extra))


def _weights(expected: Ints, predicted: Ints, chosen: Bools) -> Floats:
    """Return the loss of macro-F1 if a row turned from right to wrong: 2 / (K D_y), shape (rows,)."""
    counts = class_counts(expected, predicted, len(chosen))
    share = 2 * chosen / (np.maximum(counts.expected + counts.predicted, 1) * max(int(chosen.sum()), 1))
    return np.asarray(np.append(share, 0.0)[expected], dtype=np.float64)


def _no_variation_width(weights: Floats, units: Units, critical: float) -> float:
    """Return the half width if the data show no variation, so that the interval does not claim certainty.

    Critical value squared over the number of units if all classes are equally frequent, as in Tango's interval without
    discordant rows; larger if some classes are rare.
    """
    return critical**2 * float(np.sqrt(np.mean(weights**2))) * units.rows / units.count


def _jackknife(units: Units, confidence: float) -> tuple[str, float]:
    method = f"delete-one-{'group' if units.grouped else 'row'} jackknife, t({units.count - 1})"
    return method, float(scipy.stats.t.ppf((1 + confidence) / 2, max(units.count - 1, 1)))
