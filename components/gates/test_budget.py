"""The test set is a budget: each candidate that is judged on it is a look, and looks wear it out."""

from pydantic import Field

from components.artifacts.verdict import GateResult, Outcome, Role
from components.gates.support.evidence import LEVEL, Evidence, GateSection


class Params(GateSection):
    """How many candidates one frozen test set may judge."""

    role: Role = Field(Role.REQUIRED, description="required | blocking | informational | off; off: every look decides at the whole 5 %")
    at_most: int = Field(5, ge=1, le=1000, description="candidates a test set; each is decided at 5 % divided by this")
    shared: float = Field(
        0.1,
        gt=0,
        le=1,
        description="an earlier candidate counts whole that was judged on more than this share of today's rows, else in part",
    )

    @property
    def level(self) -> float:
        """The one-sided error of a single look: together they stay at 5 % (Bonferroni)."""
        return LEVEL if self.role is Role.OFF else LEVEL / self.at_most


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS while the budget lasts, INCONCLUSIVE after it."""
    if evidence.look is None:
        return GateResult.not_asked("test_budget", "this look at the test set is not counted")
    said = f"candidate {evidence.look} of gates.test_budget.at_most {params.at_most} on this test set"
    if evidence.look <= params.at_most:
        left = params.at_most - evidence.look
        change = f"after {left} more candidates this test set decides nothing any more"
        reason = f"{said}, each decided at {evidence.level:.2%}"
        return GateResult(gate="test_budget", outcome=Outcome.PASS, reason=reason, change=change, notes=evidence.wear)
    change = (
        f"a test set of which no more than {params.shared:.0%} was judged before (gates.test_budget.shared): newly labelled rows".replace(
            "%", " %"
        )
    )
    reason = f"{said}: the test set is used up, label more or start a new one"
    return GateResult(gate="test_budget", outcome=Outcome.INCONCLUSIVE, reason=reason, change=change, notes=evidence.wear)
