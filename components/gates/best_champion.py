"""Not worse than the best champion so far: without it, margins add up over retrainings, each a little worse than the one before."""

from pydantic import Field

from components.artifacts.verdict import GateResult, Outcome, Role
from components.gates.support.evidence import Evidence, GateSection
from components.gates.support.noninferiority import common_rows, compare


class Params(GateSection):
    """How much worse than the best champion so far a candidate may be."""

    role: Role = Field(Role.REQUIRED, description="required | blocking | informational | off")
    metric: str = Field("accuracy", description="one of the task's, on the test split")
    margin: float = Field(
        0.02, gt=0, description="non-inferiority: the difference's lower end must be above minus this; in the metric's unit"
    )


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS when the difference's interval is above minus the margin, else INCONCLUSIVE; it fails by being worse than the anchor."""
    rival = evidence.anchor
    if rival is None:
        return GateResult.not_asked("best_champion", "there is no better champion so far than the present one")
    if rival.predictions is None:
        reason = f"{rival.called}, the best champion so far, cannot be scored: {rival.fault}"
        return GateResult(
            gate="best_champion", outcome=Outcome.INCONCLUSIVE, reason=reason, change="gates.best_champion.role: informational"
        )
    known = common_rows(evidence, rival.predictions, rival)
    if known is None:
        reason = f"{rival.called}, the best champion so far, knows none of the test set's labels"
        return GateResult(
            gate="best_champion", outcome=Outcome.INCONCLUSIVE, reason=reason, change="gates.best_champion.role: informational"
        )
    called = f"{rival.called}, the best champion so far"
    return compare("best_champion", *known, called, params.metric, params.margin, -params.margin)
