"""The metric set of classification: accuracy and F1 of answers that are one of a few classes."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from components.artifacts.metrics import Estimate
from components.artifacts.predictions import Predictions
from components.stats.f1 import f1, f1_difference, f1_difference_error
from components.stats.proportions import effective_rows, proportion, proportion_difference, proportion_rows
from components.stats.significance import estimate_below, mcnemar, share_below, standard_error, tango_below
from components.stats.units import Bools, Floats, Ints, Units

METRICS = ("accuracy", "macro_f1", "micro_f1", "weighted_f1")
COMPARABLE = ("accuracy", "macro_f1")
_USUAL = 0.9  # level of the interval that corresponds to a one-sided 5 % test
MIN_BINARY_UNITS = 100
"""With two eligible classes, the rarer needs this many rows or groups: with fewer, the one-sided error of macro-F1 reached 7 %."""


@dataclass(frozen=True)
class ClassificationMetrics:
    """A `MetricSet`: `expected` (rows,) as indexes in `labels`, the independent `units`, and how many of them a class needs in macro-F1."""

    expected: Ints
    labels: tuple[str, ...]
    units: Units
    min_class_units: int

    metrics = COMPARABLE
    shown = METRICS

    @classmethod
    def from_predictions(cls, predictions: Predictions, min_class_units: int) -> "ClassificationMetrics":
        """Build the test set from the predictions of a model; `predictions.labels` becomes the list of classes."""
        expected = encode(predictions.expected, predictions.labels)
        return cls(expected, predictions.labels, Units.from_groups(predictions.groups), min_class_units)

    def on(self, predictions: Predictions) -> "ClassificationMetrics":
        """Return the metric set for other rows."""
        return self.from_predictions(predictions, self.min_class_units)

    def encode(self, labels: npt.NDArray[np.str_]) -> Ints:
        """Return the indexes of `labels` (rows,) in the list of classes, -1 for other labels."""
        return encode(labels, self.labels)

    @cached_property
    def class_units(self) -> Floats:
        """Rows of each class, or groups that contain it if rows are grouped, shape (classes,)."""
        known = self.expected >= 0
        pairs = np.unique(self.units.index[known] * len(self.labels) + self.expected[known])
        return np.bincount(pairs % len(self.labels), minlength=len(self.labels)).astype(np.float64)

    @property
    def eligible(self) -> Bools:
        """The classes with enough units for macro-F1, shape (classes,)."""
        return np.asarray(self.class_units >= self.min_class_units, dtype=np.bool_)

    @property
    def averaged(self) -> Bools:
        """The eligible classes, or all classes if none is, so that there is a number to show."""
        return self.eligible if self.eligible.any() else np.ones(len(self.labels), dtype=np.bool_)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The labels that macro-F1 ignores."""
        return tuple(label for label, eligible in zip(self.labels, self.eligible, strict=True) if not eligible)

    def doubt(self, metric: str) -> str | None:
        """Return why gates may not decide on a metric of this test set; None if they may."""
        if metric != "macro_f1":
            return self.units.doubt
        unit = "groups" if self.units.grouped else "rows"
        if not self.eligible.any():
            return f"no class has {self.min_class_units} test {unit} (evaluate.min_class_units)"
        # The rule for two classes also applies if only two are eligible, or if one of two is not.
        entering = self.class_units if len(self.labels) == 2 else self.class_units[self.eligible]
        if len(entering) == 2 and (rarest := int(entering.min())) < MIN_BINARY_UNITS:
            return f"the rarer of the two classes has {rarest} test {unit}, and macro-F1's interval needs {MIN_BINARY_UNITS}"
        return self.units.doubt

    def score(self, metric: str, predictions: Predictions, confidence: float = 0.95) -> Estimate:
        """Return one of `METRICS`, with a two-sided interval.

        Macro-F1 averages the eligible classes; micro- and weighted F1 use all classes.
        """
        answers = self.encode(predictions.predicted)
        if metric == "accuracy":
            return proportion((answers == self.expected) & (answers >= 0), self.units, confidence)
        if metric == "macro_f1":
            return self._macro(f1(self.expected, answers, self.averaged, self.units, "macro", confidence), (0.0, 1.0))
        everything = np.ones(len(self.labels), dtype=np.bool_)
        return f1(self.expected, answers, everything, self.units, "micro" if metric == "micro_f1" else "weighted", confidence)

    def difference(self, metric: str, predictions: Predictions, other: Predictions, confidence: float = 0.95) -> Estimate:
        """Return one of `COMPARABLE` for `predictions` minus that for `other`, paired by row, with a two-sided interval."""
        first, second = self.encode(predictions.predicted), self.encode(other.predicted)
        if metric == "accuracy":
            known = self.expected >= 0
            return proportion_difference((first == self.expected) & known, (second == self.expected) & known, self.units, confidence)
        return self._macro(f1_difference(self.expected, first, second, self.averaged, self.units, confidence), (-1.0, 1.0))

    def below(self, metric: str, predictions: Predictions, threshold: float) -> float:
        """Return the one-sided p that one of `COMPARABLE` is at least `threshold`; small if the score is below it."""
        if metric == "accuracy":
            answers = self.encode(predictions.predicted)
            right = (answers == self.expected) & (answers >= 0)
            return share_below(right, threshold, proportion_rows(right, self.units, _USUAL))
        estimate = self.score(metric, predictions, _USUAL)
        return estimate_below(estimate.value, standard_error(estimate, self.units), threshold, self.units)

    def difference_below(self, metric: str, predictions: Predictions, other: Predictions, threshold: float = 0.0) -> float:
        """Return the one-sided p that the paired difference of one of `COMPARABLE` is at least `threshold`.

        Accuracy without groups against 0: mid-p McNemar; else Tango's score test, by groups on n / deff. Macro-F1: its standard error.
        """
        first, second, units = self.encode(predictions.predicted), self.encode(other.predicted), self.units
        if metric == "macro_f1":
            value, error = f1_difference_error(self.expected, first, second, self.averaged, units)
            return estimate_below(value, error, threshold, units)
        right, others = ((answers == self.expected) & (self.expected >= 0) for answers in (first, second))
        gained, lost = int(np.sum(right & ~others)), int(np.sum(others & ~right))
        if threshold == 0 and not units.grouped:
            return mcnemar(gained, lost)
        share = effective_rows(right.astype(np.float64) - others.astype(np.float64), units) / units.rows if units.grouped else 1.0
        return tango_below(gained * share, lost * share, units.rows * share, threshold, units)

    def _macro(self, estimate: Estimate, bounds: tuple[float, float]) -> Estimate:
        """Add the doubt about the classes; without an eligible class the interval covers all possible values."""
        ends = {} if self.eligible.any() else {"low": bounds[0], "high": bounds[1]}
        return estimate.model_copy(update={"doubt": self.doubt("macro_f1"), **ends})


def encode(values: npt.NDArray[np.str_], labels: tuple[str, ...]) -> Ints:
    """Return the index of each value in `labels`, -1 for other values."""
    position = {label: number for number, label in enumerate(labels)}
    names, index = np.unique(values, return_inverse=True)
    return np.array([position.get(str(name), -1) for name in names], dtype=np.int64)[index.reshape(-1)]
