"""The self-test for task-specific metrics that are functions of sums over rows.

Synthetic models shift one of the sums that a metric depends on, three times as far in every second unit, so that the units vary. The
expected outcomes follow from the metric and a linear approximation, not from the jackknife that the gates use.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy

from components.artifacts.verdict import GateResult, Outcome
from components.gates import GatesParams
from components.gates.support.evidence import LEVEL, Evidence
from components.judge.selftest.expectations import (
    CAN_REJECT,
    EXACT,
    SURE,
    ExpectedComparison,
    SelfTestCase,
    check_equal,
    number,
    self_test_error,
)
from components.model.support.metrics import Metric
from components.stats.metric_sets import MetricSet
from components.stats.units import Floats

_DOUBLINGS = 40
_LEAST = 1e-3  # share of the shifted sum at which the search starts


@dataclass(frozen=True)
class AdditiveSelfTest(SelfTestCase):
    """The self-test of sums, with the row statistics of the model that the synthetic ones derive from."""

    metric_set: MetricSet
    reference: Mapping[str, Floats]

    @classmethod
    def from_evidence(cls, evidence: Evidence, gates: GatesParams) -> "AdditiveSelfTest":
        """Derive the self-test from the champion's answers, or the candidate's if there is no champion."""
        metric_set = evidence.metric_set
        champion = evidence.champion.predictions if evidence.champion else None
        statistics = metric_set.statistics(champion or evidence.candidate)
        reference = {name: np.asarray(values, dtype=np.float64) for name, values in statistics.items()}
        return cls(evidence, gates, replace(metric_set, statistics=lambda predictions: predictions.measured), reference)

    def judge(self, candidate: Mapping[str, Floats], other: Mapping[str, Floats]) -> dict[str, GateResult]:
        """Return the gates' results for the row statistics of one model against those of another."""
        model, reference = (replace(self.evidence.candidate, measured=dict(statistics)) for statistics in (candidate, other))
        return self.decide(model, reference, metric_set=self.metric_set)

    def shifted(self, metric: str, share: float) -> dict[str, Floats]:
        """Return the reference with the most influential sum of `metric` shifted by `share` of its size, so that the metric gets worse."""
        name, direction = self._lever(metric)
        uneven = np.where(self.metric_set.units.index % 2 == 0, 0.5, 1.5)
        size = max(abs(float(self.reference[name].mean())), EXACT)
        return {**self.reference, name: self.reference[name] - direction * share * size * uneven}

    def difference(self, metric: str, other: Mapping[str, Floats]) -> float:
        """Return the metric of the reference minus that of `other`."""
        measure = self.metric_set.measures[metric]
        return measure.of(self.reference) - measure.of(other)

    def error(self, metric: str, other: Mapping[str, Floats]) -> float:
        """Return the standard error of that difference, to first order: the shift of each unit, times the slope of the metric."""
        name, _ = self._lever(metric)
        units = self.metric_set.units
        shifts = units.sums(self.reference[name] - other[name]) * _slope(self.metric_set.measures[metric], self.reference, name)
        return float(np.sqrt(np.sum((shifts - shifts.mean()) ** 2) * units.count / max(units.count - 1, 1)))

    def _lever(self, metric: str) -> tuple[str, float]:
        """Return the sum to shift for this metric, and the sign of its slope.

        Of the influential sums, this is the one that the fewest other metrics depend on, because these must not improve.
        """
        measure, measures = self.metric_set.measures[metric], self.metric_set.measures.values()
        slopes = {name: _slope(measure, self.reference, name) for name in measure.sums}
        force = {name: abs(slopes[name] * float(self.reference[name].sum())) for name in measure.sums}
        influential = [name for name in measure.sums if force[name] >= max(force.values()) / 2]
        name = min(influential, key=lambda sum_name: sum(sum_name in other.sums for other in measures))
        return name, float(np.sign(slopes[name])) or 1.0


def run_selftest(evidence: Evidence, gates: GatesParams) -> Iterator[str]:
    """Run the gates on synthetic models and yield a sentence per test; raise SelfTestFailed if they decide wrongly."""
    trial = AdditiveSelfTest.from_evidence(evidence, gates)
    equal = trial.judge(trial.reference, trial.reference)
    level = LEVEL / max(sum(len(result.hypotheses) for result in equal.values() if result.role in CAN_REJECT), 1)
    yield f"a model against itself: {_equal(trial, equal)}"
    for test in trial.comparisons:
        metric = test.metrics[0]
        if doubt := trial.metric_set.doubt(metric):
            yield f"{test.gate} cannot decide on {metric}: {doubt}"
        else:
            yield _worsened(trial, test, level)


def _equal(trial: AdditiveSelfTest, results: dict[str, GateResult]) -> str:
    """Check a model against itself: no FAIL unless it must be better, and PASS if the width without variation is within the margin."""
    units = trial.metric_set.units.count
    squared = float(scipy.stats.t.ppf(1 - trial.evidence.level, max(units - 1, 1))) ** 2
    for test in trial.comparisons:
        result, metric = results[test.gate], test.metrics[0]
        low, high = trial.metric_set.measures[metric].bounds
        if result.outcome is Outcome.FAIL and test.threshold <= 0:
            raise self_test_error(f"{test.gate}: FAIL for a model against itself: {result.reason}")
        if not trial.metric_set.doubt(metric) and np.isfinite(high - low):
            check_equal(test, result, (high - low) * squared / (units + squared), 1e-7)
    return trial.outcomes(results)


def _worsened(trial: AdditiveSelfTest, test: ExpectedComparison, level: float) -> str:
    """Check a model that is worse by more than margin and noise: it must FAIL, and PASS with both models swapped."""
    metric, needed = test.metrics[0], SURE * float(scipy.stats.t.ppf(1 - level, max(trial.metric_set.units.count - 1, 1)))
    share = _LEAST
    for _ in range(_DOUBLINGS):
        worse = trial.shifted(metric, share)
        gap, error = trial.difference(metric, worse), trial.error(metric, worse)
        if gap - needed * error > abs(test.threshold) + EXACT:
            break
        share *= 2
        if share > 1:
            return f"{test.gate}: no model could be made that is worse on {metric} by more than the margin"
    result, swapped = trial.judge(worse, trial.reference)[test.gate], trial.judge(trial.reference, worse)[test.gate]
    description = f"a model whose {metric} is worse by {gap:.4f}"
    if result.outcome is not Outcome.FAIL:
        raise self_test_error(f"{test.gate}: {result.outcome} for {description}, expected FAIL: {result.reason}")
    if swapped.outcome is not Outcome.PASS:
        raise self_test_error(f"{test.gate}: {swapped.outcome} for the better of the two models, expected PASS: {swapped.reason}")
    if abs(number(result.estimate) + gap) > 1e-6 or (result.low, result.high) != (-number(swapped.high), -number(swapped.low)):
        raise self_test_error(f"{test.gate}: estimate {result.estimate} for {description}, and {swapped.estimate} with both models swapped")
    return f"{description}: {test.gate} FAIL; both models swapped: every interval mirrored, {test.gate} PASS"


def _slope(measure: Metric, statistics: Mapping[str, Floats], name: str) -> float:
    """Return the derivative of the metric with respect to one of its sums, by a central difference."""
    sums = {key: float(statistics[key].sum()) for key in measure.sums}
    step = 1e-4 * max(abs(sums[name]), 1.0)
    ends = [float(measure.value(*(np.asarray(sums[key] + sign * step * (key == name)) for key in measure.sums))) for sign in (1, -1)]
    return (ends[0] - ends[1]) / (2 * step)
