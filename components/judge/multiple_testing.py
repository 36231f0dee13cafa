"""Correct everything that may reject for multiple testing, and combine the gates' results into one outcome."""

from collections.abc import Sequence

from components.artifacts.verdict import GateResult, Hypothesis, Outcome, Role
from components.gates.support.evidence import LEVEL
from components.stats.significance import holm

_CAN_REJECT = (Role.REQUIRED, Role.BLOCKING)


def correct_tests(results: Sequence[GateResult], level: float = LEVEL) -> tuple[GateResult, ...]:
    """Return the results with every hypothesis corrected (Holm, over all gates that can reject); FAIL if one is rejected.

    Rejecting is a union test: without the correction nine gates at 5 % reject an equal model in 25 % of cases.
    """
    family = [way.p for result in results if result.role in _CAN_REJECT for way in result.hypotheses]
    adjusted = iter(holm(family).tolist()) if family else iter(())
    corrected = []
    for result in results:
        if result.role in _CAN_REJECT:
            hypotheses = tuple(_correct(way, next(adjusted), level) for way in result.hypotheses)
            corrected.append(_reject(result.model_copy(update={"hypotheses": hypotheses})))
        else:
            corrected.append(result)
    return tuple(corrected)


def combine(results: Sequence[GateResult]) -> tuple[Outcome, str]:
    """Return outcome and reason: FAIL if a gate that can reject fails, else INCONCLUSIVE if a required gate is, else PASS."""
    failed = [result for result in results if result.outcome is Outcome.FAIL and result.role in _CAN_REJECT]
    if failed:
        return Outcome.FAIL, _reasons(sorted(failed, key=lambda result: result.role is not Role.REQUIRED))
    required = [result for result in results if result.role is Role.REQUIRED]
    undecided = [result for result in required if result.outcome is Outcome.INCONCLUSIVE]
    if undecided or not required:
        return Outcome.INCONCLUSIVE, _reasons(undecided) or "No gate is required: set gates.NAME.role to required for at least one gate."
    return Outcome.PASS, _summary(results)


def _summary(results: Sequence[GateResult]) -> str:
    judging = [result for result in results if result.applicable]
    required = sum(result.role is Role.REQUIRED for result in judging)
    blocking = [result for result in judging if result.role is Role.BLOCKING]
    undecided = [result.gate for result in blocking if result.outcome is Outcome.INCONCLUSIVE]
    skipped = [result.gate for result in results if not result.applicable]
    summary = _count_passing(required, required, "required") or "No required gate had anything to judge"
    if blocking:
        summary += f"; {_count_passing(len(blocking) - len(undecided), len(blocking), 'blocking')}"
    summary = f"{summary[0].upper()}{summary[1:]}."
    if skipped:
        summary += f" {len(judging)} of {len(results)} gates had something to test; not applicable: {', '.join(skipped)}."
    return summary + (f" Inconclusive: {', '.join(undecided)}." if undecided else "")


def _count_passing(passing: int, total: int, role: str) -> str:
    if total <= 1:
        return f"the one {role} gate {'passes' if passing else 'is inconclusive'}" if total else ""
    return f"{'all' if passing == total else f'{passing} of'} {total} {role} gates {'passes' if passing == 1 else 'pass'}"


def _correct(hypothesis: Hypothesis, adjusted: float, level: float) -> Hypothesis:
    return hypothesis.model_copy(update={"adjusted": adjusted, "rejected": adjusted <= level})


def _reject(result: GateResult) -> GateResult:
    rejected = sorted((way for way in result.hypotheses if way.rejected), key=lambda way: way.p)
    if not rejected or result.outcome is Outcome.FAIL:
        return result
    worst = rejected[0]
    more = f" (and {len(rejected) - 1} more)" if len(rejected) > 1 else ""
    reason = f"{worst.says}, p {worst.adjusted:.2g} after Holm's correction{more}"
    return result.model_copy(update={"outcome": Outcome.FAIL, "reason": reason, "change": None})  # what it says is about PASS


def _reasons(results: Sequence[GateResult]) -> str:
    return " ".join(f"{result.gate}: {result.reason}." for result in results)
