"""What a test set is measured by: metrics of classes, or a task's own metrics as functions of sums over rows.

Evaluation, gates and reports ask a yardstick and need not know which task it is for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy

from components.artifacts.metrics import Estimate
from components.artifacts.predictions import Predictions
from components.model.support.metrics import Metric
from components.stats import scores
from components.stats.significance import estimate_below
from components.stats.units import MIN_GROUPS, Floats, Units, jackknife_variance, symmetric

Statistics = Callable[[Predictions], Mapping[str, Floats]]


class MetricSet(Protocol):
    """The metrics of one test set; `metrics` may be decided on, `shown` are reported, both with the most telling first.

    Every method takes predictions of the rows that the yardstick was made for, in their order.
    """

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that gates may decide on."""

    @property
    def shown(self) -> tuple[str, ...]:
        """The names of the metrics that are reported."""

    @property
    def units(self) -> Units:
        """The independent units of the test set."""

    def on(self, found: Predictions) -> "MetricSet":
        """Return the yardstick for other rows, those of `found`."""

    def doubt(self, metric: str) -> str | None:
        """Say why a metric of this test set may decide nothing; None where it may."""

    def score(self, metric: str, found: Predictions, confidence: float = 0.95) -> Estimate:
        """Return a metric with its two-sided interval."""

    def difference(self, metric: str, found: Predictions, other: Predictions, confidence: float = 0.95) -> Estimate:
        """Return a metric of `found` minus that of `other`, paired by row, with its two-sided interval."""

    def below(self, metric: str, found: Predictions, threshold: float) -> float:
        """Return the one-sided p that the metric is at least `threshold`."""

    def difference_below(self, metric: str, found: Predictions, other: Predictions, threshold: float = 0.0) -> float:
        """Return the one-sided p that the paired difference is at least `threshold`."""


@dataclass(frozen=True)
class ClassificationMetrics:
    """Accuracy and F1 of answers that are one of a few classes."""

    truth: scores.Truth

    @classmethod
    def of(cls, found: Predictions, min_class_units: int) -> "ClassificationMetrics":
        """Take the test set from a model's predictions; its labels become the fixed list of classes."""
        return cls(scores.Truth.of(found, min_class_units))

    metrics = scores.COMPARABLE
    shown = scores.METRICS

    @property
    def units(self) -> Units:
        """The independent units of the test set."""
        return self.truth.units

    def on(self, found: Predictions) -> "ClassificationMetrics":
        """Return the yardstick for other rows."""
        return ClassificationMetrics.of(found, self.truth.min_class_units)

    def doubt(self, metric: str) -> str | None:
        """Say why a metric may decide nothing."""
        return self.truth.doubt if metric == "macro_f1" else self.units.doubt

    def score(self, metric: str, found: Predictions, confidence: float = 0.95) -> Estimate:
        """Return one of `shown`."""
        return scores.score(metric, self.truth, found.predicted, confidence)

    def difference(self, metric: str, found: Predictions, other: Predictions, confidence: float = 0.95) -> Estimate:
        """Return the difference of one of `metrics`."""
        return scores.difference(metric, self.truth, found.predicted, other.predicted, confidence)

    def below(self, metric: str, found: Predictions, threshold: float) -> float:
        """Return the p that one of `metrics` is at least `threshold`."""
        return scores.below(metric, self.truth, found.predicted, threshold)

    def difference_below(self, metric: str, found: Predictions, other: Predictions, threshold: float = 0.0) -> float:
        """Return the p that the difference of one of `metrics` is at least `threshold`."""
        return scores.difference_below(metric, self.truth, found.predicted, other.predicted, threshold)


@dataclass(frozen=True)
class AdditiveMetrics:
    """Metrics that are functions of sums over rows (`Metric`), each with the delete-one-unit jackknife.

    A unit is left out by subtracting its sums: exact, and linear in the rows. Efron and Stein (1981), Annals of Statistics 9:586:
    the jackknife's variance errs upwards. Intervals are symmetric with t(units - 1), cut to the metric's bounds; they decide from
    50 units on.
    """

    measures: Mapping[str, Metric]
    statistics: Statistics
    units: Units

    @classmethod
    def of(cls, found: Predictions, measures: Mapping[str, Metric], statistics: Statistics) -> "AdditiveMetrics":
        """Take the units from a model's predictions; `statistics` gives the row statistics of any predictions, by name."""
        return cls(measures, statistics, Units.of(found.groups))

    @property
    def metrics(self) -> tuple[str, ...]:
        """All of the measures."""
        return tuple(self.measures)

    @property
    def shown(self) -> tuple[str, ...]:
        """All of the measures."""
        return tuple(self.measures)

    def on(self, found: Predictions) -> "AdditiveMetrics":
        """Return the yardstick for other rows."""
        return AdditiveMetrics.of(found, self.measures, self.statistics)

    def doubt(self, metric: str) -> str | None:
        """Say why a metric may decide nothing: too few units."""
        if self.units.count >= MIN_GROUPS:
            return None
        kind = "groups" if self.units.grouped else "rows"
        return f"the test set has {self.units.count} {kind}, and an interval of {metric} holds its level from {MIN_GROUPS} on"

    def score(self, metric: str, found: Predictions, confidence: float = 0.95) -> Estimate:
        """Return a measure with its interval."""
        value, left_out = self._replicates(metric, found)
        return self._estimate(metric, value, left_out, self._unseen(metric, value, left_out, confidence), confidence, paired=False)

    def difference(self, metric: str, found: Predictions, other: Predictions, confidence: float = 0.95) -> Estimate:
        """Return the paired difference of a measure with its interval."""
        (mine, left), (theirs, gone) = self._replicates(metric, found), self._replicates(metric, other)
        unseen = max(self._unseen(metric, one, each, confidence) for one, each in ((mine, left), (theirs, gone)))
        return self._estimate(metric, mine - theirs, left - gone, unseen, confidence, paired=True)

    def below(self, metric: str, found: Predictions, threshold: float) -> float:
        """Return the p that a measure is at least `threshold`."""
        return self._below(*self._replicates(metric, found), threshold)

    def difference_below(self, metric: str, found: Predictions, other: Predictions, threshold: float = 0.0) -> float:
        """Return the p that the paired difference is at least `threshold`."""
        (mine, left), (theirs, gone) = self._replicates(metric, found), self._replicates(metric, other)
        return self._below(mine - theirs, left - gone, threshold)

    def _replicates(self, metric: str, found: Predictions) -> tuple[float, Floats]:
        """Return the measure, and the measure without each unit in turn (units,)."""
        measure, rows = self.measures[metric], self.statistics(found)
        by_unit = [self.units.sums(rows[name]) for name in measure.sums]
        totals = [float(one.sum()) for one in by_unit]
        left_out = measure.value(*(total - one for total, one in zip(totals, by_unit, strict=True)))
        return float(measure.value(*map(np.asarray, totals))), np.asarray(left_out, dtype=np.float64)

    def _critical(self, confidence: float) -> float:
        return float(scipy.special.stdtrit(max(self.units.count - 1, 1), (1 + confidence) / 2))

    def _unseen(self, metric: str, value: float, left_out: Floats, confidence: float) -> float:
        """Return the half width where the data show no variation: as a share's, critical² / (n + critical²), of all that could vary."""
        low, high = self.measures[metric].bounds
        spread = high - low
        if not np.isfinite(spread):  # of one unit, as far as this model's units differ from each other
            spread = float(np.sqrt(jackknife_variance(value, left_out) * self.units.count))
        square = self._critical(confidence) ** 2
        return spread * square / (self.units.count + square)

    def _estimate(self, metric: str, value: float, left_out: Floats, unseen: float, confidence: float, *, paired: bool) -> Estimate:
        error = float(np.sqrt(jackknife_variance(value, left_out)))
        half = self._critical(confidence) * error if error > 1e-12 else unseen
        low, high = self.measures[metric].bounds
        bounds = (low - high, high - low) if paired else (low, high)
        method = f"delete-one-{'group' if self.units.grouped else 'row'} jackknife, t({self.units.count - 1})"
        return symmetric(value, half, bounds, n=self.units.count, method=method, confidence=confidence, doubt=self.doubt(metric))

    def _below(self, value: float, left_out: Floats, threshold: float) -> float:
        error = float(np.sqrt(jackknife_variance(value, left_out)))
        if error <= 1e-12:  # certain only as far as one more, contrary unit would leave it
            return 1.0 if value >= threshold - 1e-12 else float(0.5 ** min(self.units.count, 1000))
        if not self.units.grouped:
            return float(scipy.special.stdtr(max(self.units.count - 1, 1), (value - threshold) / error))
        return estimate_below(value, error, threshold, self.units)
