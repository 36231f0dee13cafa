"""Absolute floor: is the candidate good enough to be used at all?"""

from pydantic import Field

from components.artifacts.verdict import GateResult, Outcome, Role
from components.gates.support.evidence import Evidence, GateSection, hypothesis, interval, result


class Params(GateSection):
    """The score that a model must reach, whatever it is compared with."""

    role: Role = Field(Role.REQUIRED, description="required | blocking | informational | off")
    metric: str = Field("macro_f1", description="one of the task's, on the test split")
    at_least: float = Field(0.65, description="the lower end of the metric's interval must reach this; in the metric's unit")


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS when the whole interval reaches the floor, else INCONCLUSIVE; it fails by being below."""
    estimate, floor = evidence.score(params.metric), params.at_least
    score, setting = f"{params.metric} {estimate.value:.3f}", f"gates.floor.at_least {floor:g} ({interval(estimate)})"
    below = hypothesis("below the floor", f"{score} is below {setting}", evidence.below(params.metric, floor), params.metric, estimate)
    if estimate.doubt:
        outcome, reason = Outcome.INCONCLUSIVE, f"{score} cannot be held against {setting}: {estimate.doubt}"
    elif estimate.low >= floor:
        outcome, reason = Outcome.PASS, f"{score} reaches {setting}"
    else:
        outcome, reason = Outcome.INCONCLUSIVE, f"{score} is too close to {setting}; more test rows would decide"
    change = f"PASS with a floor of {estimate.low:.3f} or less"
    return result("floor", outcome, reason, params.metric, estimate, floor, evidence, hypotheses=(below,), change=change)
