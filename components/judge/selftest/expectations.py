"""What the self-test holds the gates against: the comparisons that have a say, and what a test set can show, by simple means.

Counts, weights and closed forms, and not the code that the gates decide with.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy

from components.artifacts.verdict import GateResult, Outcome, Role
from components.core.errors import SelfTestFailed
from components.gates import GatesParams
from components.gates.support.evidence import LEVEL, Evidence, ReferenceModel
from components.judge import decide
from components.judge.multiple_testing import combine
from components.judge.selftest.synthetic_models import SyntheticModels
from components.stats import POWER, Truth
from components.stats.f1 import class_counts, f1_value
from components.stats.units import Bools, Floats, Ints

COMPARING = ("baseline", "champion", "best_champion")
SAY = (Role.REQUIRED, Role.BLOCKING)
EXACT = 1e-9
SURE = 1.5  # by how much a signal must exceed what is needed where the weights only approximate the gate's own standard error
FEWEST = 10


@dataclass(frozen=True)
class ExpectedComparison:
    """One comparing gate's settings: PASS when the difference in the first of `metrics` is above `threshold`; any of them may reject."""

    gate: str
    metrics: tuple[str, ...]
    threshold: float


@dataclass(frozen=True)
class SelfTest:
    """The test set, the models made for it, and the gates to be tried on them."""

    evidence: Evidence
    specimens: SyntheticModels
    gates: GatesParams

    def ask(self, candidate: Ints, other: Ints, look: int | None = None) -> dict[str, GateResult]:
        """Return what the gates say of one model against another that is champion, anchor and baseline, the panel checked."""
        model, rival = self.specimens.model(candidate), self.specimens.model(other)
        evidence = Evidence(
            model,
            {self.gates.baseline.against: rival},
            ReferenceModel(None, rival),
            self.evidence.min_class_units,
            anchor=ReferenceModel(None, rival),
            level=self.evidence.level,
            look=look,
            rows=self.evidence.rows,
            crosscheck=False,
        )
        results = decide(evidence, self.gates)
        check_correction(results)
        check_combine(results)
        return {one.gate: one for one in results}

    @cached_property
    def comparisons(self) -> tuple[ExpectedComparison, ...]:
        """The comparing gates that have a say."""
        return tuple(comparison(name, getattr(self.gates, name)) for name in COMPARING if getattr(self.gates, name).role in SAY)

    @property
    def truth(self) -> Truth:
        """The test set as the statistics see it."""
        return self.evidence.truth

    def doubt(self, metric: str) -> str | None:
        """Why a metric of this test set may decide nothing."""
        return self.truth.doubt if metric == "macro_f1" else self.truth.units.doubt

    @property
    def fewest(self) -> int:
        """How many rows are made worse at the least: twice the margin."""
        margin = max((-test.threshold for test in self.comparisons), default=0.0)
        return max(FEWEST, int(np.ceil(2 * margin * len(self.truth.expected))))

    def doubts(self) -> Iterator[str]:
        """Say which comparing gate may decide nothing on this test set; none of the models may then pass it."""
        for test in self.comparisons:
            if doubt := self.doubt(test.metrics[0]):
                yield f"{test.gate} can prove nothing on {test.metrics[0]}, and passes none of these models: {doubt}"

    @cached_property
    def critical(self) -> float:
        """The critical value at which gates decide."""
        return self.truth.units.critical(1 - 2 * self.evidence.level)

    def to_see(self, level: float) -> float:
        """Return how many standard errors a one-sided test at `level` needs for the usual power."""
        return self.truth.units.critical(1 - 2 * level) + float(scipy.stats.norm.ppf(POWER))

    def no_variation(self, metric: str) -> float:
        """Return the half width of the interval of a model against itself.

        Accuracy: Tango's z² / (n + z²), a group being one row. Macro-F1: z² times the root mean square of what a unit's rows count.
        """
        squared, units = self.critical**2, self.truth.units
        if metric == "accuracy":
            return squared / (units.count + squared)
        return squared * float(np.sqrt(np.mean(self.weights(metric, self.specimens.answers) ** 2))) * units.rows / units.count

    def certain(self, metric: str) -> float:
        """Return the lower end of the score of a model that is always right."""
        squared, units = self.critical**2, self.truth.units
        if metric == "accuracy":
            normal = float(scipy.stats.norm.ppf(1 - self.evidence.level))
            return float(self.evidence.level ** (1 / (units.count * normal**2 / squared)))
        weights = self.weights(metric, self.specimens.perfect())
        return 1 - squared * float(np.sqrt(np.mean(weights**2))) * units.rows / units.count

    def weights(self, metric: str, answers: Ints) -> Floats:
        """Return what each row counts in the metric (rows,): macro-F1 loses 2 / (K D_y) with a row of class y."""
        rows, specimens = len(self.truth.expected), self.specimens
        if metric == "accuracy":
            return np.full(rows, 1 / rows)
        counts = class_counts(specimens.expected, answers, specimens.classes)
        share = 2 * self._chosen / (np.maximum(counts.expected + counts.predicted, 1) * int(self._chosen.sum()))
        return np.asarray(np.append(share, 0.0)[specimens.expected], dtype=np.float64)

    def signal(self, metric: str, candidate: Ints, other: Ints, threshold: float = 0.0) -> float:
        """Return by how many standard errors the difference exceeds `threshold`, the largest error of rows, groups and uneven groups.

        The smaller of the true difference and what the weights make of it counts: over a wide gap macro-F1 is not linear in its rows.
        """
        weights, units = self.weights(metric, other), self.truth.units
        change = weights * (self._right(candidate).astype(np.float64) - self._right(other))
        gap, sums = change.sum(), units.sums(change)
        uneven = sums - gap * units.sums(weights) / max(weights.sum(), EXACT)
        spread = np.sqrt(max(np.sum(change**2), np.sum(sums**2), np.sum(uneven**2)))
        return float((min(gap, self.difference(metric, candidate, other)) - threshold) / spread) if spread else 0.0

    def difference(self, metric: str, candidate: Ints, other: Ints) -> float:
        """Return the true difference of two models."""
        if metric == "accuracy":
            return float(np.mean(self._right(candidate)) - np.mean(self._right(other)))
        return f1_value(self.specimens.expected, candidate, self._chosen) - f1_value(self.specimens.expected, other, self._chosen)

    def must_fail(self, found: dict[str, GateResult], candidate: Ints, other: Ints, level: float, told: str) -> bool:
        """Hold what is said of a worse candidate against what the test set can show; return whether every comparing gate fails."""
        for test in self.comparisons:
            self._check_sense(test, found[test.gate], candidate, other, told)
            if found[test.gate].outcome is not Outcome.FAIL and self._worse(test, candidate, other, level, sure=True):
                raise self_test_error(f"{test.gate} says {found[test.gate].outcome} of {told}, expected FAIL: {found[test.gate].reason}")
        able = [test for test in self.comparisons if any(self.doubt(metric) is None for metric in test.metrics)]
        return all(found[test.gate].outcome is Outcome.FAIL for test in able)

    def must_pass(self, found: dict[str, GateResult], candidate: Ints, other: Ints, told: str) -> bool:
        """Hold what is said of a better candidate against what the test set can show; return whether every comparing gate passes."""
        for test in self.comparisons:
            self._check_sense(test, found[test.gate], candidate, other, told)
            if found[test.gate].outcome is not Outcome.PASS and self._better(test, candidate, other, sure=True):
                raise self_test_error(f"{test.gate} says {found[test.gate].outcome} of {told}, expected PASS: {found[test.gate].reason}")
        return all(found[test.gate].outcome is Outcome.PASS for test in self.comparisons if self.doubt(test.metrics[0]) is None)

    def shows_worse(self, candidate: Ints, other: Ints, level: float) -> bool:
        """Whether the candidate is worse by more than the test set can detect."""
        able = [test for test in self.comparisons if any(self.doubt(metric) is None for metric in test.metrics)]
        return all(self._worse(test, candidate, other, level) for test in able)

    def shows_better(self, candidate: Ints, other: Ints) -> bool:
        """Whether the candidate is better by more than the test set can detect."""
        return all(self._better(test, candidate, other) for test in self.comparisons if self.doubt(test.metrics[0]) is None)

    def _worse(self, test: ExpectedComparison, candidate: Ints, other: Ints, level: float, sure: bool = False) -> bool:
        """Whether one of the comparison's metrics has fallen by more than is needed to see it; the first by its margin, too."""
        settled = self.difference(test.metrics[0], candidate, other) > test.threshold
        return any(
            self.doubt(metric) is None
            and not (settled and metric == test.metrics[0])
            and self.signal(metric, other, candidate, -max(test.threshold, 0)) >= self.to_see(level) * self._factor(metric, sure)
            for metric in test.metrics
        )

    def _better(self, test: ExpectedComparison, candidate: Ints, other: Ints, sure: bool = False) -> bool:
        metric = test.metrics[0]
        needed = self.to_see(self.evidence.level) * self._factor(metric, sure)
        return self.doubt(metric) is None and self.signal(metric, candidate, other, max(test.threshold, 0)) >= needed

    def _check_sense(self, test: ExpectedComparison, result: GateResult, candidate: Ints, other: Ints, told: str) -> None:
        """No interval lifts a number over a threshold that it does not reach, or makes worse what is not worse."""
        differences = [self.difference(metric, candidate, other) for metric in test.metrics]
        if abs(number(result.estimate) - differences[0]) > EXACT:
            raise self_test_error(f"{test.gate} measures {result.estimate} for {told}, expected {differences[0]:+.6f}")
        if result.outcome is Outcome.PASS and (doubt := self.doubt(test.metrics[0])):
            raise self_test_error(f"{test.gate} says PASS of {told} although {doubt}")
        if result.outcome is Outcome.PASS and differences[0] <= test.threshold:
            raise self_test_error(f"{test.gate} says PASS of {told}, whose difference is {differences[0]:+.4f}")
        if result.outcome is Outcome.FAIL and min(differences) >= max(test.threshold, 0):
            raise self_test_error(f"{test.gate} says FAIL of {told}, whose difference is {differences[0]:+.4f}: {result.reason}")

    def _factor(self, metric: str, sure: bool) -> float:
        """By how much a signal must exceed what is needed: the weights only approximate the error of macro-F1, and that of groups."""
        return SURE if sure and (metric == "macro_f1" or self.truth.units.grouped) else 1.0

    @cached_property
    def _chosen(self) -> Bools:
        return self.truth.eligible if self.truth.eligible.any() else np.ones(self.specimens.classes, dtype=np.bool_)

    def _right(self, answers: Ints) -> Bools:
        return np.asarray((answers == self.specimens.expected) & (answers >= 0))


def comparison(gate: str, params: Any) -> ExpectedComparison:
    """Return what the settings of a comparing gate ask for."""
    threshold = params.margin if gate == "baseline" else -params.margin
    return ExpectedComparison(gate, tuple(dict.fromkeys((params.metric, *getattr(params, "also", ())))), threshold)


def check_correction(results: Iterable[GateResult]) -> None:
    """Hold every adjusted p against Holm's definition, and every FAIL and rejection against the adjusted p."""
    asked = [one for one in results if one.role in SAY]
    every = np.array([way.p for one in asked for way in one.hypotheses])
    for one in asked:
        for way in one.hypotheses:
            smaller = every[every <= way.p]
            expected = min(float(np.max(smaller * (every[None, :] >= smaller[:, None]).sum(axis=1))), 1.0)
            if way.adjusted is None or abs(way.adjusted - expected) > EXACT or way.rejected != (way.adjusted <= LEVEL):
                raise self_test_error(f"{one.gate}: p {way.p:.3g} of {way.name!r} was corrected to {way.adjusted}, expected {expected:.3g}")
        if any(way.rejected for way in one.hypotheses) and one.outcome is not Outcome.FAIL:
            raise self_test_error(f"{one.gate} says {one.outcome} although {one.hypotheses[0].name!r} is rejected")


def check_combine(results: tuple[GateResult, ...]) -> None:
    """Any FAIL is FAIL; promotion needs every gate that decides, and one at least."""
    decide_, say = [one.outcome for one in results if one.role is Role.REQUIRED], [one.outcome for one in results if one.role in SAY]
    passing = Outcome.PASS if decide_ and set(decide_) == {Outcome.PASS} else Outcome.INCONCLUSIVE
    expected, found = Outcome.FAIL if Outcome.FAIL in say else passing, combine(results)[0]
    if found is not expected:
        raise self_test_error(f"{', '.join(f'{one.gate} {one.outcome}' for one in results)} was folded to {found}, expected {expected}")


def number(end: float | None) -> float:
    """Return an end of an interval, NaN where there is none."""
    return float("nan") if end is None else end


def self_test_error(reason: str) -> SelfTestFailed:
    """Return the error that ends a run."""
    return SelfTestFailed(f"gates are not able to decide: {reason}")
