"""The protocol of metric sets, and the metric set of task metrics that are functions of sums over rows.

Evaluation, gates and reports use a metric set without knowing the task.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy

from components.artifacts.metrics import Estimate
from components.artifacts.predictions import Predictions
from components.model.support.metrics import Metric
from components.stats.units import MIN_GROUPS, Floats, Units, jackknife_variance, symmetric

Statistics = Callable[[Predictions], Mapping[str, Floats]]


class MetricSet(Protocol):
    """The metrics of one test set: gates may decide on `metrics`, reports show `shown`; the most important come first.

    All methods take predictions for the rows of the test set, in their order.
    """

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that gates may decide on."""

    @property
    def shown(self) -> tuple[str, ...]:
        """Names of the reported metrics."""

    @property
    def units(self) -> Units:
        """The independent units of the test set."""

    def on(self, predictions: Predictions) -> "MetricSet":
        """Return the metric set for the rows of `predictions`."""

    def doubt(self, metric: str) -> str | None:
        """Return why gates may not decide on a metric of this test set; None if they may."""

    def score(self, metric: str, predictions: Predictions, confidence: float = 0.95) -> Estimate:
        """Return a metric with its two-sided interval."""

    def difference(self, metric: str, predictions: Predictions, other: Predictions, confidence: float = 0.95) -> Estimate:
        """Return a metric of `predictions` minus that of `other`, paired by row, with its two-sided interval."""

    def below(self, metric: str, predictions: Predictions, threshold: float) -> float:
        """Return the one-sided p that the metric is at least `threshold`."""

    def difference_below(self, metric: str, predictions: Predictions, other: Predictions, threshold: float = 0.0) -> float:
        """Return the one-sided p that the paired difference is at least `threshold`."""


@dataclass(frozen=True)
class AdditiveMetrics:
    """Metrics that are functions of sums over rows (`Metric`), each with the delete-one-unit jackknife.

    A unit is left out by subtracting its sums: exact, in linear time. Efron and Stein (1981), Annals of Statistics 9:586: the
    jackknife variance is biased upwards. Intervals are symmetric with t(units - 1), cut to the bounds of the metric; gates decide
    on them from 50 units on.
    """

    measures: Mapping[str, Metric]
    statistics: Statistics
    units: Units

    @classmethod
    def from_predictions(cls, predictions: Predictions, measures: Mapping[str, Metric], statistics: Statistics) -> "AdditiveMetrics":
        """Build the metric set from the predictions of a model; `statistics` returns row statistics of predictions by name."""
        return cls(measures, statistics, Units.from_groups(predictions.groups))

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics."""
        return tuple(self.measures)

    shown = metrics

    def on(self, predictions: Predictions) -> "AdditiveMetrics":
        """Return the metric set for other rows."""
        return AdditiveMetrics.from_predictions(predictions, self.measures, self.statistics)

    def doubt(self, metric: str) -> str | None:
        """Return why gates may not decide on a metric: too few units."""
        if self.units.count >= MIN_GROUPS:
            return None
        unit = "groups" if self.units.grouped else "rows"
        return f"the test set has {self.units.count} {unit}; an interval of {metric} needs at least {MIN_GROUPS}"

    def score(self, metric: str, predictions: Predictions, confidence: float = 0.95) -> Estimate:
        """Return a metric with its interval."""
        replicates = self._replicates(metric, predictions)
        return self._estimate(metric, *replicates, self._no_variation_width(metric, *replicates, confidence), confidence, paired=False)

    def difference(self, metric: str, predictions: Predictions, other: Predictions, confidence: float = 0.95) -> Estimate:
        """Return the paired difference of a metric with its interval."""
        both = self._replicates(metric, predictions), self._replicates(metric, other)
        least = max(self._no_variation_width(metric, *replicates, confidence) for replicates in both)
        return self._estimate(metric, both[0][0] - both[1][0], both[0][1] - both[1][1], least, confidence, paired=True)

    def below(self, metric: str, predictions: Predictions, threshold: float) -> float:
        """Return the p that a metric is at least `threshold`."""
        return self._below(*self._replicates(metric, predictions), threshold)

    def difference_below(self, metric: str, predictions: Predictions, other: Predictions, threshold: float = 0.0) -> float:
        """Return the p that the paired difference is at least `threshold`."""
        (value, left_out), (other_value, other_left_out) = self._replicates(metric, predictions), self._replicates(metric, other)
        return self._below(value - other_value, left_out - other_left_out, threshold)

    def _replicates(self, metric: str, predictions: Predictions) -> tuple[float, Floats]:
        """Return a metric, and the metric with each unit left out in turn (units,)."""
        definition, rows = self.measures[metric], self.statistics(predictions)
        by_unit = [self.units.sums(rows[name]) for name in definition.sums]
        totals = [float(sums.sum()) for sums in by_unit]
        left_out = definition.value(*(total - sums for total, sums in zip(totals, by_unit, strict=True)))
        return float(definition.value(*map(np.asarray, totals))), np.asarray(left_out, dtype=np.float64)

    def _critical(self, confidence: float) -> float:
        return float(scipy.special.stdtrit(max(self.units.count - 1, 1), (1 + confidence) / 2))

    def _no_variation_width(self, metric: str, value: float, left_out: Floats, confidence: float) -> float:
        """Return the half width if the data show no variation: critical² / (n + critical²), as for a share, of the metric's range."""
        low, high = self.measures[metric].bounds
        spread = high - low
        if not np.isfinite(spread):  # unbounded: the spread between the units of this model
            spread = float(np.sqrt(jackknife_variance(value, left_out) * self.units.count))
        square = self._critical(confidence) ** 2
        return spread * square / (self.units.count + square)

    def _estimate(self, metric: str, value: float, left_out: Floats, least: float, confidence: float, *, paired: bool) -> Estimate:
        error = float(np.sqrt(jackknife_variance(value, left_out)))
        half = self._critical(confidence) * error if error > 1e-12 else least
        low, high = self.measures[metric].bounds
        bounds = (low - high, high - low) if paired else (low, high)
        method = f"delete-one-{'group' if self.units.grouped else 'row'} jackknife, t({self.units.count - 1})"
        return symmetric(value, half, bounds, n=self.units.count, method=method, confidence=confidence, doubt=self.doubt(metric))

    def _below(self, value: float, left_out: Floats, threshold: float) -> float:
        error = float(np.sqrt(jackknife_variance(value, left_out)))
        if error <= 1e-12:  # only as certain as with one contrary unit added
            return 1.0 if value >= threshold - 1e-12 else float(0.5 ** min(self.units.count, 1000))
        return float(scipy.special.stdtr(max(self.units.count - 1, 1), (value - threshold) / error))
