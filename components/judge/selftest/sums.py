"""The self-test where a task has measures of its own: metrics that are functions of sums over rows.

Models are made by moving one of the sums that a measure depends on, in every second unit thrice as far as in the others, so that the units
vary. What must come out follows from the measure itself and from a linear approximation, not from the jackknife that the gates decide by.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy

from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Outcome
from components.gates import GatesParams
from components.gates.support.evidence import LEVEL, Evidence, ReferenceModel
from components.judge import decide
from components.judge.selftest.expectations import (
    COMPARING,
    EXACT,
    SAY,
    SURE,
    ExpectedComparison,
    check_combine,
    check_correction,
    comparison,
    number,
    self_test_error,
)
from components.model.support.metrics import Metric
from components.stats import AdditiveMetrics
from components.stats.units import Floats

_DOUBLINGS = 40
_LEAST = 1e-3  # of the sum that is moved: where the search for what must be seen begins


@dataclass(frozen=True)
class AdditiveSelfTest:
    """The test set of a task with measures, the row statistics of the model that others are made of, and the gates to be tried."""

    evidence: Evidence
    yardstick: AdditiveMetrics
    reference: Mapping[str, Floats]
    gates: GatesParams

    @classmethod
    def of(cls, evidence: Evidence, gates: GatesParams) -> "AdditiveSelfTest":
        """Make the trial from the champion's answers, the candidate's where there is none."""
        yardstick = evidence.yardstick
        assert isinstance(yardstick, AdditiveMetrics)
        champion = evidence.champion.predictions if evidence.champion else None
        given = {
            name: np.asarray(values, dtype=np.float64) for name, values in yardstick.statistics(champion or evidence.candidate).items()
        }
        return cls(evidence, replace(yardstick, statistics=lambda found: found.measured), given, gates)

    @property
    def comparisons(self) -> list[ExpectedComparison]:
        """The comparing gates that have a say."""
        return [comparison(name, getattr(self.gates, name)) for name in COMPARING if getattr(self.gates, name).role in SAY]

    def ask(self, candidate: Mapping[str, Floats], other: Mapping[str, Floats]) -> dict[str, GateResult]:
        """Return what the gates say of one model against another that is champion, anchor and baseline, the panel checked."""
        model, rival = self._model(candidate), self._model(other)
        evidence = Evidence(
            model,
            {self.gates.baseline.against: rival},
            ReferenceModel(None, rival),
            self.evidence.min_class_units,
            anchor=ReferenceModel(None, rival),
            level=self.evidence.level,
            crosscheck=False,
            yardstick=self.yardstick,
        )
        results = decide(evidence, self.gates)
        check_correction(results)
        check_combine(results)
        return {one.gate: one for one in results}

    def moved(self, metric: str, share: float) -> dict[str, Floats]:
        """Return the reference with the most telling sum of `metric` moved by `share` of its size, so that the metric falls."""
        name, direction = self._lever(metric)
        uneven = np.where(self.yardstick.units.index % 2 == 0, 0.5, 1.5)
        size = max(abs(float(self.reference[name].mean())), EXACT)
        return {**self.reference, name: self.reference[name] - direction * share * size * uneven}

    def difference(self, metric: str, other: Mapping[str, Floats]) -> float:
        """Return by how much the metric of the reference is above that of `other`."""
        measure = self.yardstick.measures[metric]
        return measure.of(self.reference) - measure.of(other)

    def error(self, metric: str, other: Mapping[str, Floats]) -> float:
        """Return the standard error of that difference, to first order: what moved in each unit, times the slope of the measure."""
        name, _ = self._lever(metric)
        units = self.yardstick.units
        moved = units.sums(self.reference[name] - other[name]) * _slope(self.yardstick.measures[metric], self.reference, name)
        return float(np.sqrt(np.sum((moved - moved.mean()) ** 2) * units.count / max(units.count - 1, 1)))

    def _lever(self, metric: str) -> tuple[str, float]:
        """Return the sum that the metric is moved by, and the sign of its slope.

        Of those that move it much, in shares of themselves, the one that the fewest other measures rest on: they must not get better by it.
        """
        measure, measures = self.yardstick.measures[metric], self.yardstick.measures.values()
        slopes = {name: _slope(measure, self.reference, name) for name in measure.sums}
        force = {name: abs(slopes[name] * float(self.reference[name].sum())) for name in measure.sums}
        telling = [name for name in measure.sums if force[name] >= max(force.values()) / 2]
        name = min(telling, key=lambda one: sum(one in other.sums for other in measures))
        return name, float(np.sign(slopes[name])) or 1.0

    def _model(self, statistics: Mapping[str, Floats]) -> Predictions:
        return replace(self.evidence.candidate, measured=dict(statistics))


def run_selftest(evidence: Evidence, gates: GatesParams) -> Iterator[str]:
    """Try the gates on models whose truth is known, and say what was tried; GatesUnable where they decide wrongly."""
    trial = AdditiveSelfTest.of(evidence, gates)
    equal = trial.ask(trial.reference, trial.reference)
    level = LEVEL / max(sum(len(one.hypotheses) for one in equal.values() if one.role in SAY), 1)
    yield f"a model against itself: {_equal(trial, equal)}"
    for test in trial.comparisons:
        metric = test.metrics[0]
        if doubt := trial.yardstick.doubt(metric):
            yield f"{test.gate} can prove nothing on {metric}: {doubt}"
        else:
            yield _worsened(trial, test, level)


def _equal(trial: AdditiveSelfTest, found: dict[str, GateResult]) -> str:
    """Against itself a model never fails, unless it must be better, and passes if the width without variation is within the margin."""
    units = trial.yardstick.units.count
    squared = float(scipy.stats.t.ppf(1 - trial.evidence.level, max(units - 1, 1))) ** 2
    for test in trial.comparisons:
        result, metric = found[test.gate], test.metrics[0]
        low, high = trial.yardstick.measures[metric].bounds
        if result.outcome is Outcome.FAIL and test.threshold <= 0:
            raise self_test_error(f"{test.gate} says FAIL of a model against itself: {result.reason}")
        if trial.yardstick.doubt(metric) or not np.isfinite(high - low):
            continue
        width = (high - low) * squared / (units + squared)
        if not np.allclose((number(result.low), number(result.high)), (-width, width), rtol=0, atol=1e-7):
            raise self_test_error(f"{test.gate} gives a model against itself {result.low} to {result.high}, expected ±{width:.6f}")
        if test.threshold <= 0 and abs(width + test.threshold) > EXACT and (result.outcome is Outcome.PASS) != (-width > test.threshold):
            raise self_test_error(
                f"{test.gate} says {result.outcome} of a model against itself, whose interval is ±{width:.4f}: {result.reason}"
            )
    return ", ".join(f"{test.gate} {found[test.gate].outcome}" for test in trial.comparisons) or "no gate that compares has a say"


def _worsened(trial: AdditiveSelfTest, test: ExpectedComparison, level: float) -> str:
    """A model that is worse by more than the margin and the test set's noise must FAIL; the other way round it must PASS."""
    metric, needed = test.metrics[0], SURE * float(scipy.stats.t.ppf(1 - level, max(trial.yardstick.units.count - 1, 1)))
    share = _LEAST
    for _ in range(_DOUBLINGS):
        worse = trial.moved(metric, share)
        gap, error = trial.difference(metric, worse), trial.error(metric, worse)
        if gap - needed * error > abs(test.threshold) + EXACT:
            break
        share *= 2
        if share > 1:
            return f"{test.gate}: nothing could be made worse on {metric} by more than the margin"
    said, back = trial.ask(worse, trial.reference)[test.gate], trial.ask(trial.reference, worse)[test.gate]
    told = f"a model whose {metric} is worse by {gap:.4f}"
    if said.outcome is not Outcome.FAIL:
        raise self_test_error(f"{test.gate} says {said.outcome} of {told}, expected FAIL: {said.reason}")
    if back.outcome is not Outcome.PASS:
        raise self_test_error(f"{test.gate} says {back.outcome} of the better of the two, expected PASS: {back.reason}")
    if abs(number(said.estimate) + gap) > 1e-6 or (said.low, said.high) != (-number(back.high), -number(back.low)):
        raise self_test_error(f"{test.gate} measures {said.estimate} for {told}, and {back.estimate} the other way round")
    return f"{told}: {test.gate} FAIL; exchanged: every interval mirrored, {test.gate} PASS"


def _slope(measure: Metric, statistics: Mapping[str, Floats], name: str) -> float:
    """Return the derivative of the measure in one of its sums, by a central difference."""
    sums = {one: float(statistics[one].sum()) for one in measure.sums}
    step = 1e-4 * max(abs(sums[name]), 1.0)
    ends = [float(measure.value(*(np.asarray(sums[one] + sign * step * (one == name)) for one in measure.sums))) for sign in (1, -1)]
    return (ends[0] - ends[1]) / (2 * step)
