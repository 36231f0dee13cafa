"""The metrics of classification: accuracy and F1 of answers that are one of a few classes.

A further metric is one entry of `CLASSIFICATION`; without an estimator of its own it gets the jackknife.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from components.artifacts.metrics import Estimate
from components.artifacts.predictions import Predictions
from components.model.support.metrics import Metric, mean, ratio
from components.model.support.metrics import f1 as f1_of_sums
from components.stats.f1 import Average, f1, f1_difference, f1_difference_error
from components.stats.metric_sets import CountsDifference, Jackknife, MetricSet
from components.stats.proportions import effective_rows, proportion, proportion_difference, proportion_rows
from components.stats.significance import estimate_below, mcnemar, share_below, standard_error, tango_below
from components.stats.true_classes import TrueClasses
from components.stats.units import Bools, Ints

_USUAL = 0.9  # level of the interval that corresponds to a one-sided 5 % test
MIN_BINARY_UNITS = 100
"""With two eligible classes, the rarer needs this many rows or groups: with fewer, the one-sided error of macro-F1 reached 7 %."""


@dataclass(frozen=True)
class ClassEstimator(Jackknife):
    """Estimates a metric of a classification task; without restriction of the classes, a test set of any size can decide."""

    @property
    def classes(self) -> TrueClasses:
        """The expected classes."""
        assert self.truth is not None
        return self.truth

    @property
    def doubt(self) -> str | None:
        """Why gates may not decide: too few groups."""
        return self.units.doubt

    def answers(self, predictions: Predictions) -> Ints:
        """Return the answers as indexes of classes (rows,)."""
        return self.classes.encode(predictions.predicted)


@dataclass(frozen=True)
class Accuracy(ClassEstimator):
    """Estimates the share of right rows, with exact intervals."""

    @property
    def counts_difference(self) -> CountsDifference:
        """The difference of the shares."""
        return lambda first, second: np.asarray((first.hits.sum(axis=1) - second.hits.sum(axis=1)) / first.expected.sum(axis=1))

    def score(self, predictions: Predictions, confidence: float) -> Estimate:
        """Return the accuracy with the interval of Clopper and Pearson."""
        return proportion(self._right(predictions), self.units, confidence)

    def difference(self, predictions: Predictions, other: Predictions, confidence: float) -> Estimate:
        """Return the paired difference with Tango's interval."""
        return proportion_difference(self._right(predictions), self._right(other), self.units, confidence)

    def below(self, predictions: Predictions, threshold: float) -> float:
        """Return the p of Clopper and Pearson that the accuracy is at least `threshold`."""
        right = self._right(predictions)
        return share_below(right, threshold, proportion_rows(right, self.units, _USUAL))

    def difference_below(self, predictions: Predictions, other: Predictions, threshold: float) -> float:
        """Return the p that the difference is at least `threshold`.

        Without groups against 0: mid-p McNemar; else Tango's score test, by groups on n / deff.
        """
        units, right, others = self.units, self._right(predictions), self._right(other)
        gained, lost = int(np.sum(right & ~others)), int(np.sum(others & ~right))
        if threshold == 0 and not units.grouped:
            return mcnemar(gained, lost)
        share = effective_rows(right.astype(np.float64) - others.astype(np.float64), units) / units.rows if units.grouped else 1.0
        return tango_below(gained * share, lost * share, units.rows * share, threshold, units)

    def _right(self, predictions: Predictions) -> Bools:
        return np.asarray((self.answers(predictions) == self.classes.expected) & (self.classes.expected >= 0))


@dataclass(frozen=True)
class MacroF1(ClassEstimator):
    """Estimates macro-F1 over the eligible classes, with linearised standard errors, by groups with the jackknife."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """The labels with too few units."""
        return self.classes.left_out

    @property
    def counts_difference(self) -> CountsDifference:
        """The difference of the averages."""
        return lambda first, second: np.asarray((first.f1 - second.f1)[:, self.classes.averaged].mean(axis=1))

    @property
    def doubt(self) -> str | None:
        """Why gates may not decide: too few groups, or too few units of the classes."""
        classes, unit = self.classes, "groups" if self.units.grouped else "rows"
        if not classes.eligible.any():
            return f"no class has {classes.min_class_units} test {unit} (evaluate.min_class_units)"
        # The rule for two classes also applies if only two are eligible, or if one of two is not.
        entering = classes.class_units if len(classes.labels) == 2 else classes.class_units[classes.eligible]
        if len(entering) == 2 and (rarest := int(entering.min())) < MIN_BINARY_UNITS:
            return f"the rarer of the two classes has {rarest} test {unit}, and macro-F1's interval needs {MIN_BINARY_UNITS}"
        return self.units.doubt

    def score(self, predictions: Predictions, confidence: float) -> Estimate:
        """Return macro-F1 with its interval."""
        classes = self.classes
        estimate = f1(classes.expected, self.answers(predictions), classes.averaged, self.units, "macro", confidence)
        return self._with_doubt(estimate, (0.0, 1.0))

    def difference(self, predictions: Predictions, other: Predictions, confidence: float) -> Estimate:
        """Return the paired difference with its interval."""
        both = self.answers(predictions), self.answers(other)
        return self._with_doubt(f1_difference(self.classes.expected, *both, self.classes.averaged, self.units, confidence), (-1.0, 1.0))

    def below(self, predictions: Predictions, threshold: float) -> float:
        """Return the p that macro-F1 is at least `threshold`, from its standard error."""
        estimate = self.score(predictions, _USUAL)
        return estimate_below(estimate.value, standard_error(estimate, self.units), threshold, self.units)

    def difference_below(self, predictions: Predictions, other: Predictions, threshold: float) -> float:
        """Return the p that the difference is at least `threshold`, from its standard error."""
        both = self.answers(predictions), self.answers(other)
        value, error = f1_difference_error(self.classes.expected, *both, self.classes.averaged, self.units)
        return estimate_below(value, error, threshold, self.units)

    def _with_doubt(self, estimate: Estimate, bounds: tuple[float, float]) -> Estimate:
        """Add the doubt about the classes; without an eligible class the interval covers all possible values."""
        ends = {} if self.classes.eligible.any() else {"low": bounds[0], "high": bounds[1]}
        return estimate.model_copy(update={"doubt": self.doubt, **ends})


@dataclass(frozen=True)
class AverageF1(ClassEstimator):
    """Estimates micro- or weighted F1 over all classes: the jackknife, with a wider interval for rare classes without variation."""

    average: Average = "micro"

    def score(self, predictions: Predictions, confidence: float) -> Estimate:
        """Return the average with its interval."""
        everything = np.ones(len(self.classes.labels), dtype=np.bool_)
        return f1(self.classes.expected, self.answers(predictions), everything, self.units, self.average, confidence)


_CLASSES = ("class_hits", "class_predicted", "class_expected")

CLASSIFICATION: dict[str, Metric] = {
    "accuracy": mean("right", "share of the rows that are right", estimator=Accuracy, rank=1),
    "macro_f1": Metric(
        ("averaged_hits", "averaged_predicted", "averaged_expected"),
        lambda hits, predicted, expected: np.asarray(f1_of_sums(hits, predicted, expected).mean(axis=-1)),
        "mean of the F1 scores of the labels",
        estimator=MacroF1,
        rank=0,
        hub_type="f1",
    ),
    "micro_f1": Metric(
        _CLASSES,
        lambda *counts: f1_of_sums(*(count.sum(axis=-1) for count in counts)),
        "F1 over all labels of all rows",
        decidable=False,
        estimator=partial(AverageF1, average="micro"),
        hub_type="f1",
    ),
    "weighted_f1": Metric(
        _CLASSES,
        lambda hits, predicted, expected: ratio((expected * f1_of_sums(hits, predicted, expected)).sum(axis=-1), expected.sum(axis=-1)),
        "mean of the F1 scores of the labels, weighted by their rows",
        decidable=False,
        estimator=partial(AverageF1, average="weighted"),
        hub_type="f1",
    ),
}
"""The metrics of every task with classes; a metric of this name in the task's `test_metrics` is not used."""


def classification(predictions: Predictions, min_class_units: int) -> MetricSet:
    """Return the metrics of classification on the test set of `predictions`, without those of a task."""
    return MetricSet.from_predictions(predictions, CLASSIFICATION, lambda model: model.measured, min_class_units)
