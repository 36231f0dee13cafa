"""Are the gates able to decide on this test set? Before each decision they are asked about models whose truth is known.

The models are made from one that exists, the champion (the candidate where there is none), and are judged as a candidate is. What
must come out is worked out here by simpler means than the gates use: counts, weights and closed forms. A test set that is too small to
show something is said to be; gates that would decide wrongly end the run.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

import numpy as np

from components.artifacts.verdict import GateResult, Outcome, Role
from components.gates import GatesParams
from components.gates.support.evidence import LEVEL, Evidence
from components.judge import decide
from components.judge.selftest.expectations import COMPARING, EXACT, FEWEST, SAY, SURE, SelfTest, number, self_test_error
from components.judge.selftest.sums import run_selftest
from components.judge.selftest.synthetic_models import SyntheticModels

TRIED = (*COMPARING, "floor", "test_budget", "slices", "calibration")
"""The gates that the models are put to; the others rest on what was measured of the candidate itself."""


def selftest(evidence: Evidence, gates: GatesParams) -> tuple[str, ...]:
    """Try the gates on models whose truth is known; return what was tried, a sentence each, and what could not be shown.

    Raises:
        GatesUnable: a gate, the correction or the fold decides wrongly; the message says which and how.
    """
    if evidence.level > gates.test_budget.level + EXACT:
        raise self_test_error(
            f"they are asked to decide at {evidence.level:.2%}, and gates.test_budget allows {gates.test_budget.level:.2%} a look"
        )
    if not evidence.classes:
        return (*run_selftest(evidence, _only(gates, (*COMPARING, "floor"))), *_looks_alone(evidence, gates))
    if not np.isin(evidence.candidate.expected, evidence.candidate.labels).any():
        return ("no test row has a label that the candidate knows, so no model could be made to try the gates on",)
    evidence = _of_known_labels(evidence)
    champion = evidence.champion.predictions if evidence.champion else None
    trial = SelfTest(evidence, SyntheticModels.of(evidence, champion or evidence.candidate), _only(gates, TRIED))
    return tuple(_tried(trial, "the champion" if champion else "the candidate"))


def _only(gates: GatesParams, names: Collection[str]) -> GatesParams:
    """Return the settings with all other gates off."""
    others = [name for name in type(gates).model_fields if name not in names]
    off = {name: getattr(gates, name).model_copy(update={"role": Role.OFF}) for name in others}
    only: GatesParams = gates.model_copy(update=off)
    return only


def _of_known_labels(evidence: Evidence) -> Evidence:
    """Return the rows whose label the candidate knows: of the others no model of its labels could be made."""
    known = np.isin(evidence.candidate.expected, evidence.candidate.labels)
    if known.all():
        return evidence
    rival = evidence.champion
    if rival is not None and rival.predictions is not None:
        rival = replace(rival, predictions=rival.predictions.take(known))
    rows = None if evidence.rows is None else evidence.rows[known]
    own = evidence.candidate.take(known)
    return replace(evidence, candidate=own, champion=rival, rows=rows, yardstick=evidence.yardstick.on(own))


def _tried(trial: SelfTest, called: str) -> Iterator[str]:
    reference = trial.specimens.answers
    equal = trial.ask(reference, reference)
    hypotheses = max(sum(len(one.hypotheses) for one in equal.values() if one.role in SAY), 1)
    yield from trial.doubts()
    yield f"{called} against itself: {_equal(trial, equal)}"
    yield from _worsened(trial, called, LEVEL / hypotheses)
    yield _shuffled(trial, called, LEVEL / hypotheses)
    yield _mended(trial, called)
    yield _extremes(trial, LEVEL / hypotheses)
    yield from _looks_alone(trial.evidence, trial.gates)


def _equal(trial: SelfTest, found: dict[str, GateResult]) -> str:
    """Against itself a model passes exactly when the width without any variation is below the margin, and never fails."""
    for test in trial.comparisons:
        result, metric = found[test.gate], test.metrics[0]
        width = min(trial.no_variation(metric), 1.0)
        if trial.doubt(metric):
            continue
        if not np.allclose((number(result.low), number(result.high)), (-width, width), rtol=0, atol=EXACT):
            raise self_test_error(f"{test.gate} gives a model against itself {result.low} to {result.high}, expected ±{width:.6f}")
        if abs(width + test.threshold) > EXACT and (result.outcome is Outcome.PASS) != (-width > test.threshold):
            raise self_test_error(
                f"{test.gate} says {result.outcome} of a model against itself, whose interval is ±{width:.4f}: {result.reason}"
            )
    for name in ("slices", "calibration", *(test.gate for test in trial.comparisons if test.threshold <= 0)):
        if name in found and found[name].outcome is Outcome.FAIL:
            raise self_test_error(f"{name} says FAIL of a model against itself: {found[name].reason}")
    return f"{_outcomes(trial, found)}, as the formulas say for {trial.truth.units.count:,} test units"


def _worsened(trial: SelfTest, called: str, level: float) -> Iterator[str]:
    """Right answers made wrong must FAIL, and the other way round PASS, with every interval mirrored."""
    specimens, reference = trial.specimens, trial.specimens.answers
    most = int(specimens.right.sum())
    if not most:
        yield f"{called} is right on no row, so nothing could be made worse"
        return
    count = _grown(trial.fewest, most, lambda k: trial.shows_worse(specimens.flipped(k), reference, level))
    while True:
        worse, told = specimens.flipped(count), f"a model with {min(count, most):,} right answers made wrong"
        said, back = trial.ask(worse, reference), trial.ask(reference, worse)
        failed = trial.must_fail(said, worse, reference, level, told)
        passed = trial.must_pass(back, reference, worse, f"a model against {told}")
        if (failed and passed) or count >= most:
            break
        count *= 2
    _check_mirrored(said, back)
    all_of_them = " (all there are)" if count >= most else ""
    yield f"{min(count, most):,} right answers made wrong{all_of_them}: {_outcomes(trial, said)}{_unless(failed)}"
    yield f"the same two exchanged: every interval mirrored, {_outcomes(trial, back)}{_unless(passed)}"


def _shuffled(trial: SelfTest, called: str, level: float) -> str:
    """Answers that have nothing to do with the rows must FAIL."""
    reference, shuffled = trial.specimens.answers, trial.specimens.shuffled()
    if np.array_equal(reference, shuffled):
        return f"{called} answers every row alike, so its answers could not be shuffled"
    said = trial.ask(shuffled, reference)
    _check_mirrored(said, trial.ask(reference, shuffled))
    failed = trial.must_fail(said, shuffled, reference, level, "a model whose answers are shuffled")
    return f"answers shuffled over the rows: {_outcomes(trial, said)}{_unless(failed)}"


def _mended(trial: SelfTest, called: str) -> str:
    """Errors mended beyond what the test set can detect must PASS."""
    specimens, reference = trial.specimens, trial.specimens.answers
    most = int(specimens.mendable.sum())
    if not most:
        return f"{called} has no error that could be mended"
    count = _grown(FEWEST, most, lambda k: trial.shows_better(specimens.mended(k), reference))
    while True:
        better, told = specimens.mended(count), f"a model with {min(count, most):,} errors mended"
        said = trial.ask(better, reference)
        passed = trial.must_pass(said, better, reference, told)
        if passed or count >= most:
            break
        count *= 2
    all_of_them = " (all there are)" if count >= most else ""
    return f"{min(count, most):,} errors mended{all_of_them}: {_outcomes(trial, said)}{_unless(passed)}"


def _extremes(trial: SelfTest, level: float) -> str:
    """A model that is always right, against one that never is, must PASS where the test set is large enough; the other must FAIL."""
    perfect, hopeless = trial.specimens.perfect(), trial.specimens.hopeless()
    best, worst = trial.ask(perfect, hopeless), trial.ask(hopeless, perfect)
    _check_mirrored(worst, best)
    passed = trial.must_pass(best, perfect, hopeless, "a model that is always right against one that never is")
    failed = trial.must_fail(worst, hopeless, perfect, level, "a model that is never right against one that always is")
    if trial.gates.floor.role in SAY:
        _check_floor(trial, best["floor"], worst["floor"], level)
    shown = f"{_outcomes(trial, best, 'floor')}{_unless(passed)}; never right: {_outcomes(trial, worst, 'floor')}{_unless(failed)}"
    return f"always right: {shown}"


def _check_floor(trial: SelfTest, best: GateResult, worst: GateResult, level: float) -> None:
    params = trial.gates.floor
    doubt, certain = trial.doubt(params.metric), trial.certain(params.metric)
    if worst.outcome is Outcome.PASS or best.outcome is Outcome.FAIL:
        raise self_test_error(f"floor says {worst.outcome} of a model that is never right, and {best.outcome} of one that always is")
    if doubt and best.outcome is Outcome.PASS:
        raise self_test_error(f"floor says PASS although {doubt}")
    turns = abs(certain - params.at_least) > EXACT and bool(np.all(trial.truth.expected >= 0))
    if turns and not doubt and (best.outcome is Outcome.PASS) != (certain >= params.at_least):
        raise self_test_error(f"floor says {best.outcome} of a model that is always right, whose lower end is {certain:.4f}")
    # A model that is never right is as far from 0 as one that is always right is from 1.
    far = SURE * (1 - certain) * trial.to_see(level) / trial.critical
    if not doubt and params.at_least >= far and worst.outcome is not Outcome.FAIL:
        raise self_test_error(f"floor says {worst.outcome} of a model that is never right: {worst.reason}")


def _grown(count: int, most: int, enough: Callable[[int], bool]) -> int:
    while count < most and not enough(count):
        count *= 2
    return count


def _looks_alone(evidence: Evidence, gates: GatesParams) -> Iterator[str]:
    """A candidate beyond the budget of looks must not PASS."""
    if gates.test_budget.role not in SAY:
        return
    limit, alone = gates.test_budget.at_most, _only(gates, ("test_budget",))
    outcomes = [decide(replace(evidence, look=look), alone)[0].outcome for look in (limit, limit + 1)]
    if outcomes != [Outcome.PASS, Outcome.INCONCLUSIVE]:
        raise self_test_error(f"test_budget says {outcomes[0]} of candidate {limit} and {outcomes[1]} of candidate {limit + 1} of {limit}")
    yield f"candidate {limit + 1} on this test set: test_budget INCONCLUSIVE"


def _check_mirrored(there: dict[str, GateResult], back: dict[str, GateResult]) -> None:
    for gate in COMPARING:
        if gate in there and (there[gate].low, there[gate].high) != (-number(back[gate].high), -number(back[gate].low)):
            ends = [f"{one[gate].low} to {one[gate].high}" for one in (there, back)]
            raise self_test_error(f"{gate} gives {ends[0]} one way round and {ends[1]} the other; expected the mirror image")


def _outcomes(trial: SelfTest, found: dict[str, GateResult], *more: str) -> str:
    asked = [*(test.gate for test in trial.comparisons), *(name for name in more if name in found)]
    return ", ".join(f"{name} {found[name].outcome}" for name in asked) or "no gate that compares has a say"


def _unless(shown: bool) -> str:
    return "" if shown else " (the test set is too small to show more)"
