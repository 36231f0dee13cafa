"""Self-test: before each decision, the gates judge synthetic models whose quality is known.

The synthetic models are derived from the champion (from the candidate if there is none) and judged like a candidate. The expected
outcomes come from simpler means than the gates use: counts, weights and closed forms. If a test set is too small to show something,
the self-test says so; if the gates decide wrongly, the run stops.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import cast

import numpy as np

from components.artifacts.verdict import GateResult, Outcome, Role
from components.gates import GatesParams
from components.gates.support.evidence import LEVEL, Evidence
from components.judge import decide
from components.judge.selftest.expectations import (
    CAN_REJECT,
    COMPARING,
    EXACT,
    FEWEST,
    KNOWN,
    SURE,
    SelfTest,
    check_equal,
    metrics_of,
    number,
    self_test_error,
)
from components.judge.selftest.sums import run_selftest
from components.judge.selftest.synthetic_models import SyntheticModels

TESTED = (*COMPARING, "floor", "test_budget", "slices", "calibration")
"""Gates that the self-test covers; the others use measurements of the candidate itself."""


def selftest(evidence: Evidence, gates: GatesParams) -> tuple[str, ...]:
    """Run the gates on synthetic models; return a sentence per test, including what the test set is too small to show.

    Raises:
        SelfTestFailed: a gate, the correction or the combination decides wrongly.
    """
    if evidence.level > gates.test_budget.level + EXACT:
        raise self_test_error(
            f"expected a level of at most {gates.test_budget.level:.2%} per candidate (gates.test_budget), found {evidence.level:.2%}"
        )
    if not evidence.classes:
        return (*run_selftest(evidence, _only(gates, (*COMPARING, "floor"))), *_test_budget(evidence, gates))
    if not np.isin(evidence.candidate.expected, evidence.candidate.labels).any():
        return ("no test row has a label that the candidate knows: no synthetic model could be made",)
    evidence = _with_known_labels(evidence)
    champion = evidence.champion.predictions if evidence.champion else None
    others = {name: metrics for name in (*COMPARING, "floor") if (metrics := _other_metrics(gates, name))}
    tested = _only(gates, [name for name in TESTED if name not in others])
    trial = SelfTest(evidence, tested, SyntheticModels.from_predictions(evidence, champion or evidence.candidate))
    untested = (f"{name} decides on {', '.join(metrics)}, which the self-test does not cover" for name, metrics in others.items())
    return (*untested, *_run(trial, "the champion" if champion else "the candidate"))


def _other_metrics(gates: GatesParams, name: str) -> list[str]:
    """Return the metrics that a gate decides on and that no outcomes are expected for; none if it is off."""
    params = getattr(gates, name)
    return [] if params.role is Role.OFF else [metric for metric in metrics_of(params) if metric not in KNOWN]


def _only(gates: GatesParams, names: Collection[str]) -> GatesParams:
    """Return the settings with all other gates off."""
    off = {name: section.model_copy(update={"role": Role.OFF}) for name, section in gates if name not in names}
    return cast(GatesParams, gates.model_copy(update=off))


def _with_known_labels(evidence: Evidence) -> Evidence:
    """Return the evidence on the rows whose label the candidate knows."""
    known = np.isin(evidence.candidate.expected, evidence.candidate.labels)
    if known.all():
        return evidence
    champion = evidence.champion
    if champion is not None and champion.predictions is not None:
        champion = replace(champion, predictions=champion.predictions.take(known))
    rows = None if evidence.rows is None else evidence.rows[known]
    candidate = evidence.candidate.take(known)
    return replace(evidence, candidate=candidate, champion=champion, rows=rows, metric_set=evidence.metric_set.on(candidate))


def _run(trial: SelfTest, name: str) -> Iterator[str]:
    reference = trial.models.answers
    equal = trial.judge(reference, reference)
    hypotheses = max(sum(len(result.hypotheses) for result in equal.values() if result.role in CAN_REJECT), 1)
    yield from trial.doubts()
    yield f"{name} against itself: {_equal(trial, equal)}"
    yield from _worsened(trial, name, LEVEL / hypotheses)
    yield _shuffled(trial, name, LEVEL / hypotheses)
    yield _corrected(trial, name)
    yield _extremes(trial, LEVEL / hypotheses)
    yield from _test_budget(trial.evidence, trial.gates)


def _equal(trial: SelfTest, results: dict[str, GateResult]) -> str:
    """Check a model against itself: it passes exactly if the interval width without variation is below the margin, and never fails."""
    for test in trial.comparisons:
        metric = test.metrics[0]
        if not trial.doubt(metric):
            check_equal(test, results[test.gate], min(trial.no_variation(metric), 1.0))
    for name in ("slices", "calibration", *(test.gate for test in trial.comparisons if test.threshold <= 0)):
        if name in results and results[name].outcome is Outcome.FAIL:
            raise self_test_error(f"{name}: FAIL for a model against itself: {results[name].reason}")
    return f"{trial.outcomes(results)}, as computed for {trial.truth.units.count:,} test units"


def _worsened(trial: SelfTest, name: str, level: float) -> Iterator[str]:
    """Check a model with fewer correct answers: it must FAIL, and PASS with both models swapped, with mirrored intervals."""
    models, reference = trial.models, trial.models.answers
    most = int(models.correct.sum())
    if not most:
        yield f"{name} has no correct answer, so no worse model could be made"
        return
    count = _grow(trial.fewest, most, lambda k: trial.shows_worse(models.flipped(k), reference, level))
    while True:
        worse, description = models.flipped(count), f"a model with {min(count, most):,} correct answers flipped"
        results, swapped = trial.judge(worse, reference), trial.judge(reference, worse)
        failed = trial.must_fail(results, worse, reference, level, description)
        passed = trial.must_pass(swapped, reference, worse, f"a model against {description}")
        if (failed and passed) or count >= most:
            break
        count *= 2
    _check_mirrored(results, swapped)
    everything = " (all of them)" if count >= most else ""
    yield f"{min(count, most):,} correct answers flipped{everything}: {trial.outcomes(results)}{_unless(failed)}"
    yield f"both models swapped: every interval mirrored, {trial.outcomes(swapped)}{_unless(passed)}"


def _shuffled(trial: SelfTest, name: str, level: float) -> str:
    """Check a model with shuffled answers: it must FAIL."""
    reference, shuffled = trial.models.answers, trial.models.shuffled()
    if np.array_equal(reference, shuffled):
        return f"{name} gives every row the same answer, so its answers could not be shuffled"
    results = trial.judge(shuffled, reference)
    _check_mirrored(results, trial.judge(reference, shuffled))
    failed = trial.must_fail(results, shuffled, reference, level, "a model with shuffled answers")
    return f"answers shuffled over the rows: {trial.outcomes(results)}{_unless(failed)}"


def _corrected(trial: SelfTest, name: str) -> str:
    """Check a model with fewer errors: it must PASS if the test set can detect the difference."""
    models, reference = trial.models, trial.models.answers
    most = int(models.correctable.sum())
    if not most:
        return f"{name} has no error that could be corrected"
    count = _grow(FEWEST, most, lambda k: trial.shows_better(models.corrected(k), reference))
    while True:
        better, description = models.corrected(count), f"a model with {min(count, most):,} errors corrected"
        results = trial.judge(better, reference)
        passed = trial.must_pass(results, better, reference, description)
        if passed or count >= most:
            break
        count *= 2
    everything = " (all of them)" if count >= most else ""
    return f"{min(count, most):,} errors corrected{everything}: {trial.outcomes(results)}{_unless(passed)}"


def _extremes(trial: SelfTest, level: float) -> str:
    """Check an always correct model against an always wrong one: PASS if the test set is large enough; swapped, FAIL."""
    perfect, wrong = trial.models.expected, trial.models.wrong
    best, worst = trial.judge(perfect, wrong), trial.judge(wrong, perfect)
    _check_mirrored(worst, best)
    passed = trial.must_pass(best, perfect, wrong, "an always correct model against an always wrong one")
    failed = trial.must_fail(worst, wrong, perfect, level, "an always wrong model against an always correct one")
    if trial.gates.floor.role in CAN_REJECT:
        _check_floor(trial, best["floor"], worst["floor"], level)
    outcomes = f"{trial.outcomes(best, 'floor')}{_unless(passed)}; always wrong: {trial.outcomes(worst, 'floor')}{_unless(failed)}"
    return f"always correct: {outcomes}"


def _check_floor(trial: SelfTest, best: GateResult, worst: GateResult, level: float) -> None:
    params = trial.gates.floor
    doubt, certain = trial.doubt(params.metric), trial.certain(params.metric)
    if worst.outcome is Outcome.PASS or best.outcome is Outcome.FAIL:
        raise self_test_error(f"floor: {worst.outcome} for an always wrong model, and {best.outcome} for an always correct one")
    if doubt and best.outcome is Outcome.PASS:
        raise self_test_error(f"floor: PASS although {doubt}")
    decidable = abs(certain - params.at_least) > EXACT and bool(np.all(trial.truth.expected >= 0))
    if decidable and not doubt and (best.outcome is Outcome.PASS) != (certain >= params.at_least):
        raise self_test_error(f"floor: {best.outcome} for an always correct model with the lower end {certain:.4f}")
    # The interval of an always wrong model is as far from 0 as that of an always correct one is from 1.
    distance = SURE * (1 - certain) * trial.to_see(level) / trial.critical
    if not doubt and params.at_least >= distance and worst.outcome is not Outcome.FAIL:
        raise self_test_error(f"floor: {worst.outcome} for an always wrong model: {worst.reason}")


def _grow(count: int, most: int, enough: Callable[[int], bool]) -> int:
    while count < most and not enough(count):
        count *= 2
    return count


def _test_budget(evidence: Evidence, gates: GatesParams) -> Iterator[str]:
    """Check that a candidate beyond the test-set budget does not PASS."""
    if gates.test_budget.role not in CAN_REJECT:
        return
    limit, alone = gates.test_budget.at_most, _only(gates, ("test_budget",))
    outcomes = [decide(replace(evidence, candidate_number=number), alone)[0].outcome for number in (limit, limit + 1)]
    if outcomes != [Outcome.PASS, Outcome.INCONCLUSIVE]:
        raise self_test_error(f"test_budget: {outcomes[0]} for candidate {limit} and {outcomes[1]} for candidate {limit + 1} of {limit}")
    yield f"candidate {limit + 1} on this test set: test_budget INCONCLUSIVE"


def _check_mirrored(results: dict[str, GateResult], swapped: dict[str, GateResult]) -> None:
    for gate in COMPARING:
        if gate in results and (results[gate].low, results[gate].high) != (-number(swapped[gate].high), -number(swapped[gate].low)):
            ends = [f"{side[gate].low} to {side[gate].high}" for side in (results, swapped)]
            raise self_test_error(f"{gate}: interval {ends[0]}, and {ends[1]} with both models swapped; expected mirrored intervals")


def _unless(shown: bool) -> str:
    return "" if shown else " (the test set is too small to show more)"
