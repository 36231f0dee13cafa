"""The metrics of one test set: scores, paired differences and p-values of any `Metric`.

Evaluation, gates and reports use a metric set without knowing the task.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy

from components.artifacts.metrics import MIN_GROUPS, Estimate
from components.artifacts.predictions import Predictions
from components.model.support.metrics import Metric
from components.stats.f1 import ClassCounts
from components.stats.true_classes import TrueClasses
from components.stats.units import Floats, Units, jackknife_variance, symmetric

Statistics = Callable[[Predictions], Mapping[str, Floats]]
CountsDifference = Callable[[ClassCounts, ClassCounts], Floats]
"""Takes the counts of two models, each (draws, classes), and returns the difference of each draw (draws,)."""


@dataclass(frozen=True)
class MetricSet:
    """The metrics of one test set: gates may decide on `metrics`, reports show `shown`; the most important come first.

    `statistics` returns row statistics of predictions by name. `truth` are the expected classes of a classification task. All methods take
    predictions for the rows of the test set, in their order.
    """

    measures: Mapping[str, Metric]
    statistics: Statistics
    units: Units
    truth: TrueClasses | None = None

    @classmethod
    def from_predictions(
        cls, predictions: Predictions, measures: Mapping[str, Metric], statistics: Statistics, min_class_units: int | None = None
    ) -> "MetricSet":
        """Build the metric set for the rows of `predictions`; with `min_class_units` for a classification task."""
        if min_class_units is None:
            return cls(measures, statistics, Units.from_groups(predictions.groups))
        truth = TrueClasses.from_predictions(predictions, min_class_units)
        return cls(measures, statistics, truth.units, truth)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that gates may decide on."""
        return tuple(name for name, measure in self.measures.items() if measure.decidable)

    @property
    def shown(self) -> tuple[str, ...]:
        """Names of the reported metrics."""
        return tuple(self.measures)

    def on(self, predictions: Predictions) -> "MetricSet":
        """Return the metric set for the rows of `predictions`."""
        min_class_units = self.truth.min_class_units if self.truth else None
        return self.from_predictions(predictions, self.measures, self.statistics, min_class_units)

    def estimator(self, metric: str) -> "Jackknife":
        """Return the estimator of a metric: its own, or the jackknife."""
        measure = self.measures[metric]
        estimator: Jackknife = (measure.estimator or Jackknife)(metric, measure, self.statistics, self.units, self.truth)
        return estimator

    def doubt(self, metric: str) -> str | None:
        """Return why gates may not decide on a metric of this test set; None if they may."""
        return self.estimator(metric).doubt

    def score(self, metric: str, predictions: Predictions, confidence: float = 0.95) -> Estimate:
        """Return a metric with its two-sided interval."""
        return self.estimator(metric).score(predictions, confidence)

    def difference(self, metric: str, predictions: Predictions, other: Predictions, confidence: float = 0.95) -> Estimate:
        """Return a metric of `predictions` minus that of `other`, paired by row, with its two-sided interval."""
        return self.estimator(metric).difference(predictions, other, confidence)

    def below(self, metric: str, predictions: Predictions, threshold: float) -> float:
        """Return the one-sided p that the metric is at least `threshold`; small if it is below."""
        return self.estimator(metric).below(predictions, threshold)

    def difference_below(self, metric: str, predictions: Predictions, other: Predictions, threshold: float = 0.0) -> float:
        """Return the one-sided p that the paired difference is at least `threshold`."""
        return self.estimator(metric).difference_below(predictions, other, threshold)


@dataclass(frozen=True)
class Jackknife:
    """Estimates any metric on one test set, with the delete-one-unit jackknife; the base class of estimators for one metric.

    A unit is left out by subtracting its sums: exact, in linear time. Efron and Stein (1981), Annals of Statistics 9:586: the
    jackknife variance is biased upwards. Intervals are symmetric with t(units - 1), cut to the bounds of the metric; gates decide
    on them from 50 units on.
    """

    name: str
    measure: Metric
    statistics: Statistics
    units: Units
    truth: TrueClasses | None = None

    @property
    def left_out(self) -> tuple[str, ...]:
        """The labels that the metric ignores, because too few test rows have them."""
        return ()

    @property
    def counts_difference(self) -> CountsDifference | None:
        """The difference of two models as a function of their class counts, for the bootstrap; None if it is not such a function."""
        return None

    @property
    def doubt(self) -> str | None:
        """Why gates may not decide on the metric: too few units; None if they may."""
        if self.units.count >= MIN_GROUPS:
            return None
        unit = "groups" if self.units.grouped else "rows"
        return f"the test set has {self.units.count} {unit}; an interval of {self.name} needs at least {MIN_GROUPS}"

    def score(self, predictions: Predictions, confidence: float) -> Estimate:
        """Return the metric with its interval."""
        replicates = self._replicates(predictions)
        return self._estimate(*replicates, self._no_variation_width(*replicates, confidence), confidence, paired=False)

    def difference(self, predictions: Predictions, other: Predictions, confidence: float) -> Estimate:
        """Return the paired difference with its interval."""
        both = self._replicates(predictions), self._replicates(other)
        least = max(self._no_variation_width(*replicates, confidence) for replicates in both)
        return self._estimate(both[0][0] - both[1][0], both[0][1] - both[1][1], least, confidence, paired=True)

    def below(self, predictions: Predictions, threshold: float) -> float:
        """Return the p that the metric is at least `threshold`."""
        return self._below(*self._replicates(predictions), threshold)

    def difference_below(self, predictions: Predictions, other: Predictions, threshold: float) -> float:
        """Return the p that the paired difference is at least `threshold`."""
        (value, left_out), (other_value, other_left_out) = self._replicates(predictions), self._replicates(other)
        return self._below(value - other_value, left_out - other_left_out, threshold)

    def _replicates(self, predictions: Predictions) -> tuple[float, Floats]:
        """Return the metric, and the metric with each unit left out in turn (units,)."""
        by_unit = [self.units.sums(rows) for rows in self._rows(predictions)]
        totals = [sums.sum(axis=0) for sums in by_unit]
        left_out = self.measure.value(*(total - sums for total, sums in zip(totals, by_unit, strict=True)))
        return float(self.measure.value(*map(np.asarray, totals))), np.asarray(left_out, dtype=np.float64)

    def _rows(self, predictions: Predictions) -> list[Floats]:
        """Return the row statistics of the metric: those of the task, else those of classes."""
        own = self.statistics(predictions)
        if self.truth is None:
            return [own[name] for name in self.measure.sums]
        return [own[name] if name in own else self.truth.statistic(name, predictions.predicted) for name in self.measure.sums]

    def _critical(self, confidence: float) -> float:
        return float(scipy.special.stdtrit(max(self.units.count - 1, 1), (1 + confidence) / 2))

    def _no_variation_width(self, value: float, left_out: Floats, confidence: float) -> float:
        """Return the half width if the data show no variation: critical² / (n + critical²), as for a share, of the metric's range."""
        low, high = self.measure.bounds
        spread = high - low
        if not np.isfinite(spread):  # unbounded: the spread between the units of this model
            spread = float(np.sqrt(jackknife_variance(value, left_out) * self.units.count))
        square = self._critical(confidence) ** 2
        return spread * square / (self.units.count + square)

    def _estimate(self, value: float, left_out: Floats, least: float, confidence: float, *, paired: bool) -> Estimate:
        error = float(np.sqrt(jackknife_variance(value, left_out)))
        half = self._critical(confidence) * error if error > 1e-12 else least
        low, high = self.measure.bounds
        bounds = (low - high, high - low) if paired else (low, high)
        method = f"delete-one-{'group' if self.units.grouped else 'row'} jackknife, t({self.units.count - 1})"
        return symmetric(value, half, bounds, n=self.units.count, method=method, confidence=confidence, doubt=self.doubt)

    def _below(self, value: float, left_out: Floats, threshold: float) -> float:
        error = float(np.sqrt(jackknife_variance(value, left_out)))
        if error <= 1e-12:  # only as certain as with one contrary unit added
            return 1.0 if value >= threshold - 1e-12 else float(0.5 ** min(self.units.count, 1000))
        return float(scipy.special.stdtr(max(self.units.count - 1, 1), (value - threshold) / error))
