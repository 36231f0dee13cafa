"""The panel: what may reject is corrected together, what must be proven is not, and both fold into one outcome."""

from collections.abc import Sequence

from components.artifacts.verdict import GateResult, Hypothesis, Outcome, Role
from components.gates.support.evidence import LEVEL
from components.stats import holm

_HAVE_A_SAY = (Role.REQUIRED, Role.BLOCKING)


def correct_tests(results: Sequence[GateResult], level: float = LEVEL) -> tuple[GateResult, ...]:
    """Return the results with every hypothesis corrected (Holm over all gates that have a say), FAIL where one is rejected.

    Rejecting is a union: without the correction nine gates at 5 % reject an equal model in 25 % of cases.
    """
    family = [one.p for result in results if result.role in _HAVE_A_SAY for one in result.hypotheses]
    adjusted = iter(holm(family).tolist()) if family else iter(())
    corrected = []
    for result in results:
        if result.role in _HAVE_A_SAY:
            known = tuple(_corrected(one, next(adjusted), level) for one in result.hypotheses)
            corrected.append(_decided(result.model_copy(update={"hypotheses": known})))
        else:
            corrected.append(result)
    return tuple(corrected)


def combine(results: Sequence[GateResult]) -> tuple[Outcome, str]:
    """Return the verdict and why: any FAIL of a gate that has a say, else an INCONCLUSIVE one that decides, else PASS."""
    failed = [one for one in results if one.outcome is Outcome.FAIL and one.role in _HAVE_A_SAY]
    if failed:
        return Outcome.FAIL, _reasons(sorted(failed, key=lambda one: one.role is not Role.REQUIRED))
    decide = [one for one in results if one.role is Role.REQUIRED]
    undecided = [one for one in decide if one.outcome is Outcome.INCONCLUSIVE]
    if undecided or not decide:
        return Outcome.INCONCLUSIVE, _reasons(undecided) or "No gate decides: gates.NAME.role says decides nowhere."
    asked = [one for one in results if one.asked]
    deciding, vetoes = (sum(one.role is role for one in asked) for role in (Role.REQUIRED, Role.BLOCKING))
    that = " that were asked" if deciding < len(decide) else ""
    said = f"All {deciding} deciding gates{that} pass" if deciding else "No deciding gate had anything to judge"
    said += f", and none of {vetoes} vetoes." if vetoes else "."
    unasked = [one.gate for one in results if not one.asked and one.role in _HAVE_A_SAY]
    said += f" Not asked: {', '.join(unasked)}." if unasked else ""
    open_vetoes = [one.gate for one in results if one.role is Role.BLOCKING and one.outcome is Outcome.INCONCLUSIVE]
    return Outcome.PASS, said + (f" Could not tell: {', '.join(open_vetoes)}." if open_vetoes else "")


def _corrected(one: Hypothesis, adjusted: float, level: float) -> Hypothesis:
    return one.model_copy(update={"adjusted": adjusted, "rejected": adjusted <= level})


def _decided(result: GateResult) -> GateResult:
    rejected = sorted((one for one in result.hypotheses if one.rejected), key=lambda one: one.p)
    if not rejected or result.outcome is Outcome.FAIL:
        return result
    worst = rejected[0]
    more = f" (and {len(rejected) - 1} more)" if len(rejected) > 1 else ""
    reason = f"{worst.says}, p {worst.adjusted:.2g} after Holm's correction{more}"
    return result.model_copy(update={"outcome": Outcome.FAIL, "reason": reason})


def _reasons(results: Sequence[GateResult]) -> str:
    return " ".join(f"{one.gate}: {one.reason}." for one in results)
