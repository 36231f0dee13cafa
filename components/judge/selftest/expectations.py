"""Expected outcomes of the self-test: what a test set can show, from counts, weights and closed forms.

This code is independent of the code that the gates decide with.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy

from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Outcome, Role
from components.core.errors import SelfTestFailed
from components.gates import GatesParams
from components.gates.support.evidence import LEVEL, Evidence, ReferenceModel
from components.judge import decide
from components.judge.multiple_testing import combine
from components.judge.selftest.synthetic_models import SyntheticModels
from components.stats.f1 import class_counts, f1_value
from components.stats.significance import POWER
from components.stats.true_classes import TrueClasses
from components.stats.units import Bools, Floats, Ints

KNOWN = ("accuracy", "macro_f1")
"""The metrics of classification that outcomes are expected for; they are computed here independently of the gates' code."""
COMPARING = ("baseline", "champion", "best_champion")
CAN_REJECT = (Role.REQUIRED, Role.BLOCKING)
EXACT = 1e-9
SURE = 1.5  # factor on the required signal where the weights only approximate the gate's standard error
FEWEST = 10


@dataclass(frozen=True)
class ExpectedComparison:
    """Settings of a comparing gate: PASS if the difference in the first of `metrics` is above `threshold`; each of them may reject."""

    gate: str
    metrics: tuple[str, ...]
    threshold: float


@dataclass(frozen=True)
class SelfTestCase:
    """The evidence on a test set and the settings of the tested gates."""

    evidence: Evidence
    gates: GatesParams

    def decide(self, model: Predictions, other: Predictions, **fields: Any) -> dict[str, GateResult]:
        """Return the gates' results for a model against another (as champion, best champion and baseline), with the correction checked."""
        given, reference = self.evidence, ReferenceModel(None, other)
        fields |= {"best_champion": reference, "level": given.level, "crosscheck": False}
        baseline = self.gates.baseline
        fields["baseline_scores"] = {baseline.against: {baseline.metric: 0.0}}  # the only baseline is the best
        results = decide(Evidence(model, {baseline.against: other}, reference, given.min_class_units, **fields), self.gates)
        check_correction(results)
        check_combine(results)
        return {result.gate: result for result in results}

    @cached_property
    def comparisons(self) -> list[ExpectedComparison]:
        """The comparing gates that can reject."""
        return [_comparison(name, getattr(self.gates, name)) for name in COMPARING if getattr(self.gates, name).role in CAN_REJECT]

    def outcomes(self, results: dict[str, GateResult], *more: str) -> str:
        """Return the outcomes of the comparing gates and of the gates `more` as a list."""
        names = [*(test.gate for test in self.comparisons), *(name for name in more if name in results)]
        return ", ".join(f"{name} {results[name].outcome}" for name in names) or "no comparing gate can reject"


@dataclass(frozen=True)
class SelfTest(SelfTestCase):
    """The self-test of classification, with the synthetic models on the test set."""

    models: SyntheticModels

    def judge(self, candidate: Ints, other: Ints) -> dict[str, GateResult]:
        """Return the gates' results for the answers of one model against those of another."""
        return self.decide(self.models.model(candidate), self.models.model(other), rows=self.evidence.rows)

    @property
    def truth(self) -> TrueClasses:
        """The expected classes of the test set."""
        return self.evidence.truth

    def doubt(self, metric: str) -> str | None:
        """Return why gates may not decide on a metric of this test set; None if they may."""
        return self.evidence.metric_set.doubt(metric)

    @property
    def fewest(self) -> int:
        """Minimum number of flipped answers: twice the margin."""
        margin = max((-test.threshold for test in self.comparisons), default=0.0)
        return max(FEWEST, int(np.ceil(2 * margin * len(self.truth.expected))))

    def doubts(self) -> Iterator[str]:
        """Yield a sentence for each comparing gate that cannot decide on this test set; no model may pass such a gate."""
        for test in self.comparisons:
            if doubt := self.doubt(test.metrics[0]):
                yield f"{test.gate} cannot decide on {test.metrics[0]} and passes none of these models: {doubt}"

    @cached_property
    def critical(self) -> float:
        """Critical value of the gates."""
        return self.truth.units.critical(1 - 2 * self.evidence.level)

    def to_see(self, level: float) -> float:
        """Return the standard errors that a one-sided test at `level` needs for the default power."""
        return self.truth.units.critical(1 - 2 * level) + float(scipy.stats.norm.ppf(POWER))

    def no_variation(self, metric: str) -> float:
        """Return the half width of the interval of a model against itself.

        Accuracy: Tango's z² / (n + z²), a group counting as one row. Macro-F1: z² times the root mean square of a unit's weights.
        """
        squared, units = self.critical**2, self.truth.units
        if metric == "accuracy":
            return squared / (units.count + squared)
        return squared * float(np.sqrt(np.mean(self.weights(metric, self.models.answers) ** 2))) * units.rows / units.count

    def certain(self, metric: str) -> float:
        """Return the lower end of the score of an always correct model."""
        squared, units = self.critical**2, self.truth.units
        if metric == "accuracy":
            normal = float(scipy.stats.norm.ppf(1 - self.evidence.level))
            return float(self.evidence.level ** (1 / (units.count * normal**2 / squared)))
        weights = self.weights(metric, self.models.expected)
        return 1 - squared * float(np.sqrt(np.mean(weights**2))) * units.rows / units.count

    def weights(self, metric: str, answers: Ints) -> Floats:
        """Return the weight of each row in the metric (rows,): macro-F1 loses 2 / (K D_y) with a row of class y."""
        rows, models = len(self.truth.expected), self.models
        if metric == "accuracy":
            return np.full(rows, 1 / rows)
        counts = class_counts(models.expected, answers, models.classes)
        share = 2 * self.truth.averaged / (np.maximum(counts.expected + counts.predicted, 1) * int(self.truth.averaged.sum()))
        return np.asarray(np.append(share, 0.0)[models.expected], dtype=np.float64)

    def signal(self, metric: str, candidate: Ints, other: Ints, threshold: float = 0.0) -> float:
        """Return the difference above `threshold` in standard errors; the error is the largest of rows, groups and uneven groups.

        Uses the smaller of the true difference and the weighted one: over a wide gap macro-F1 is not linear in its rows.
        """
        weights, units = self.weights(metric, other), self.truth.units
        change = weights * (self._correct(candidate).astype(np.float64) - self._correct(other))
        gap, sums = change.sum(), units.sums(change)
        uneven = sums - gap * units.sums(weights) / max(weights.sum(), EXACT)
        spread = np.sqrt(max(np.sum(change**2), np.sum(sums**2), np.sum(uneven**2)))
        return float((min(gap, self.difference(metric, candidate, other)) - threshold) / spread) if spread else 0.0

    def difference(self, metric: str, candidate: Ints, other: Ints) -> float:
        """Return the true difference of two models."""
        if metric == "accuracy":
            return float(np.mean(self._correct(candidate)) - np.mean(self._correct(other)))
        return f1_value(self.models.expected, candidate, self.truth.averaged) - f1_value(self.models.expected, other, self.truth.averaged)

    def must_fail(self, results: dict[str, GateResult], candidate: Ints, other: Ints, level: float, description: str) -> bool:
        """Check the results of a worse candidate; return whether every comparing gate fails."""
        for test in self.comparisons:
            result = results[test.gate]
            self._check_plausible(test, result, candidate, other, description)
            if result.outcome is not Outcome.FAIL and self._worse(test, candidate, other, level, sure=True):
                raise self_test_error(f"{test.gate}: {result.outcome} for {description}, expected FAIL: {result.reason}")
        return all(results[test.gate].outcome is Outcome.FAIL for test in self._decidable)

    def must_pass(self, results: dict[str, GateResult], candidate: Ints, other: Ints, description: str) -> bool:
        """Check the results of a better candidate; return whether every comparing gate passes."""
        for test in self.comparisons:
            result = results[test.gate]
            self._check_plausible(test, result, candidate, other, description)
            if result.outcome is not Outcome.PASS and self._better(test, candidate, other, sure=True):
                raise self_test_error(f"{test.gate}: {result.outcome} for {description}, expected PASS: {result.reason}")
        return all(results[test.gate].outcome is Outcome.PASS for test in self.comparisons if self.doubt(test.metrics[0]) is None)

    def shows_worse(self, candidate: Ints, other: Ints, level: float) -> bool:
        """Whether the candidate is worse by more than the test set can detect."""
        return all(self._worse(test, candidate, other, level) for test in self._decidable)

    def shows_better(self, candidate: Ints, other: Ints) -> bool:
        """Whether the candidate is better by more than the test set can detect."""
        return all(self._better(test, candidate, other) for test in self.comparisons if self.doubt(test.metrics[0]) is None)

    @property
    def _decidable(self) -> list[ExpectedComparison]:
        """The comparisons with a metric that can decide on this test set."""
        return [test for test in self.comparisons if any(self.doubt(metric) is None for metric in test.metrics)]

    def _worse(self, test: ExpectedComparison, candidate: Ints, other: Ints, level: float, sure: bool = False) -> bool:
        """Whether a metric of the comparison is worse by a detectable amount; the first metric also by its margin."""
        within = self.difference(test.metrics[0], candidate, other) > test.threshold
        return any(
            self.doubt(metric) is None
            and not (within and metric == test.metrics[0])
            and self.signal(metric, other, candidate, -max(test.threshold, 0)) >= self.to_see(level) * self._factor(metric, sure)
            for metric in test.metrics
        )

    def _better(self, test: ExpectedComparison, candidate: Ints, other: Ints, sure: bool = False) -> bool:
        metric = test.metrics[0]
        needed = self.to_see(self.evidence.level) * self._factor(metric, sure)
        return self.doubt(metric) is None and self.signal(metric, candidate, other, max(test.threshold, 0)) >= needed

    def _check_plausible(self, test: ExpectedComparison, result: GateResult, candidate: Ints, other: Ints, description: str) -> None:
        """Check the estimate, and that a PASS is above the threshold and a FAIL below it."""
        differences = [self.difference(metric, candidate, other) for metric in test.metrics]
        if abs(number(result.estimate) - differences[0]) > EXACT:
            raise self_test_error(f"{test.gate}: estimate {result.estimate} for {description}, expected {differences[0]:+.6f}")
        if result.outcome is Outcome.PASS and (doubt := self.doubt(test.metrics[0])):
            raise self_test_error(f"{test.gate}: PASS for {description} although {doubt}")
        if result.outcome is Outcome.PASS and differences[0] <= test.threshold:
            raise self_test_error(f"{test.gate}: PASS for {description} with the difference {differences[0]:+.4f}")
        if result.outcome is Outcome.FAIL and min(differences) >= max(test.threshold, 0):
            raise self_test_error(f"{test.gate}: FAIL for {description} with the difference {differences[0]:+.4f}: {result.reason}")

    def _factor(self, metric: str, sure: bool) -> float:
        """Factor on the required signal: the weights only approximate the error of macro-F1 and of groups."""
        return SURE if sure and (metric == "macro_f1" or self.truth.units.grouped) else 1.0

    def _correct(self, answers: Ints) -> Bools:
        return np.asarray((answers == self.models.expected) & (answers >= 0))


def metrics_of(params: Any) -> tuple[str, ...]:
    """Return the metrics that a gate with these settings decides on."""
    return tuple(dict.fromkeys((params.metric, *getattr(params, "also", ()))))


def _comparison(gate: str, params: Any) -> ExpectedComparison:
    return ExpectedComparison(gate, metrics_of(params), params.margin if gate == "baseline" else -params.margin)


def check_equal(test: ExpectedComparison, result: GateResult, width: float, tolerance: float = EXACT) -> None:
    """Check a model against itself: its interval is ±`width`, the width without variation, and it passes exactly above the threshold."""
    if not np.allclose((number(result.low), number(result.high)), (-width, width), rtol=0, atol=tolerance):
        raise self_test_error(f"{test.gate}: interval of a model against itself is {result.low} to {result.high}, expected ±{width:.6f}")
    if abs(width + test.threshold) > EXACT and (result.outcome is Outcome.PASS) != (-width > test.threshold):
        raise self_test_error(f"{test.gate}: {result.outcome} for a model against itself, with the interval ±{width:.4f}: {result.reason}")


def check_correction(results: Iterable[GateResult]) -> None:
    """Check every adjusted p-value against Holm's definition, and every rejection and FAIL against the adjusted p-value."""
    rejecting = [result for result in results if result.role in CAN_REJECT]
    family = np.array([way.p for result in rejecting for way in result.hypotheses])
    for result in rejecting:
        for way in result.hypotheses:
            smaller = family[family <= way.p]
            expected = min(float(np.max(smaller * (family[None, :] >= smaller[:, None]).sum(axis=1))), 1.0)
            if way.adjusted is None or abs(way.adjusted - expected) > EXACT or way.rejected != (way.adjusted <= LEVEL):
                raise self_test_error(
                    f"{result.gate}: p {way.p:.3g} of {way.name!r} was corrected to {way.adjusted}, expected {expected:.3g}"
                )
        if any(way.rejected for way in result.hypotheses) and result.outcome is not Outcome.FAIL:
            raise self_test_error(f"{result.gate}: {result.outcome} although {result.hypotheses[0].name!r} is rejected")


def check_combine(results: tuple[GateResult, ...]) -> None:
    """Check the combined outcome: any FAIL is FAIL; PASS needs at least one required gate, and a PASS from each applicable one."""
    required = {result.outcome for result in results if result.role is Role.REQUIRED}
    expected = Outcome.PASS if required and required <= {Outcome.PASS, Outcome.NOT_APPLICABLE} else Outcome.INCONCLUSIVE
    if any(result.outcome is Outcome.FAIL and result.role in CAN_REJECT for result in results):
        expected = Outcome.FAIL
    if (outcome := combine(results)[0]) is not expected:
        gates = ", ".join(f"{result.gate} {result.outcome}" for result in results)
        raise self_test_error(f"{gates} was combined to {outcome}, expected {expected}")


def number(end: float | None) -> float:
    """Return an end of an interval, NaN if it is missing."""
    return float("nan") if end is None else end


def self_test_error(reason: str) -> SelfTestFailed:
    """Return the error that stops a run."""
    return SelfTestFailed(f"the self-test of the gates failed: {reason}")
