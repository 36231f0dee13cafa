"""Absolute floor: is the candidate good enough to be used at all?"""

from typing import Annotated

from pydantic import AfterValidator, Field

from components.artifacts.verdict import GateResult, Outcome
from components.gates._evidence import Evidence, interval, known_metric, result
from components.params import Section


class Params(Section):
    """The score that a model must reach, whatever it is compared with."""

    metric: Annotated[str, AfterValidator(known_metric)] = Field("macro_f1", description="accuracy or macro_f1, on the test split")
    at_least: float = Field(0.65, gt=0, lt=1, description="the lower end of the metric's interval must reach this; a share")


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS when the whole interval reaches the floor, FAIL when all of it is below, else INCONCLUSIVE."""
    estimate, floor = evidence.score(params.metric), params.at_least
    setting = f"gates.floor.at_least {floor:g} ({interval(estimate)})"
    if estimate.doubt:
        outcome, reason = Outcome.INCONCLUSIVE, f"cannot be held against {setting}: {estimate.doubt}"
    elif estimate.low >= floor:
        outcome, reason = Outcome.PASS, f"reaches {setting}"
    elif estimate.high < floor:
        outcome, reason = Outcome.FAIL, f"is below {setting}"
    else:
        outcome, reason = Outcome.INCONCLUSIVE, f"is too close to {setting}; more test rows would decide"
    return result("floor", outcome, f"{params.metric} {estimate.value:.3f} {reason}", params.metric, estimate, floor)
