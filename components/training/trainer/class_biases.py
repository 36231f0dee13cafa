"""One number per class, added to the bias of the output layer, that raises macro-F1 where classes are imbalanced.

Macro-F1 counts every class equally, but a classifier that is fitted by its likelihood seldom predicts rare classes. The number of a class
is -strength * log(its share of the training rows): Menon et al., "Long-tail learning via logit adjustment" (2021), section 4.2.
Only the strength is fitted: a free number per class, fitted by coordinate ascent, lost macro-F1 on new rows in 4 of 9 simulations
(docs/log.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from components.model.support.cross_validation import make_folds
from components.model.support.output_heads import output_layer
from components.stats.f1 import f1_difference_error, f1_value
from components.stats.units import Floats, Ints, Units

_STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_FOLDS = 5


@dataclass(frozen=True)
class ClassBiases:
    """The number of each class (nats), all 0 if they do not help; `gain` is out-of-fold macro-F1 with minus without, `error` its error."""

    values: Floats
    gain: float
    error: float


def fit_class_biases(logits: npt.NDArray[Any], expected: Ints, groups: Sequence[str], counts: Ints) -> ClassBiases:
    """Fit the strength on validation rows, and return the biases, which are the same on every processor.

    `logits` is (rows, classes), `expected` has the class index and `groups` the group of each row, which stays in one fold, and `counts`
    (classes,) the training rows of each class. The biases are kept only if macro-F1 of rows that the strength was not fitted on rises by
    more than half its standard error.
    """
    units, classes = Units.from_groups(groups), len(counts)
    shares = np.maximum(counts, 1) / max(int(counts.sum()), 1)
    shift: Floats = np.asarray(-np.log(shares), dtype=np.float64).round(4)
    present = np.bincount(expected, minlength=classes) > 0
    folds = make_folds(groups, expected.tolist(), count=_FOLDS)
    if not folds:
        return ClassBiases(np.zeros(classes), 0.0, 0.0)
    answers = np.stack([(np.asarray(logits, dtype=np.float64) + strength * shift).argmax(axis=1) for strength in _STRENGTHS])

    def best(rows: npt.NDArray[Any]) -> int:
        return int(np.argmax([f1_value(expected[rows], predicted[rows], present) for predicted in answers]))

    left_out = answers[0].copy()
    for fitted, held_out in folds:
        left_out[held_out] = answers[best(fitted), held_out]
    gain, error = f1_difference_error(expected, left_out, answers[0], present, units)
    strength = _STRENGTHS[best(np.arange(len(expected)))] if gain > error / 2 else 0.0
    return ClassBiases(np.asarray(strength * shift, dtype=np.float64), gain, error)


def add_biases(model: Any, values: Floats) -> bool:
    """Add `values` to the bias of the output layer of `model`; return false if the layer has none."""
    import torch

    layer = output_layer(model, len(values))[1]
    if layer.bias is None:
        return False
    with torch.no_grad():
        layer.bias += torch.from_numpy(values).to(layer.bias)
    return True
