"""Test-set budget: the number of candidates that one frozen test set may judge."""

from pydantic import Field

from components.artifacts.verdict import GateResult, Outcome, Role
from components.gates.support import LEVEL, ROLE, Evidence, GateSection, Need, inconclusive

NEEDS: frozenset[Need] = frozenset({"candidate_number"})


class Params(GateSection):
    """The budget of a frozen test set."""

    role: Role = Field(Role.REQUIRED, description=f"{ROLE}; off: every candidate is decided at 5 %")
    at_most: int = Field(5, ge=1, le=1000, description="candidates per test set; each is decided at 5 % divided by this")
    shared: float = Field(
        0.1,
        gt=0,
        le=1,
        description="an earlier candidate counts fully if it was judged on more than this share of the current rows, else partly",
    )

    @property
    def level(self) -> float:
        """One-sided error per candidate: together they stay at 5 % (Bonferroni)."""
        return LEVEL if self.role is Role.OFF else LEVEL / self.at_most


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS within the budget, INCONCLUSIVE beyond it."""
    if evidence.candidate_number is None:
        return GateResult.not_applicable("test_budget", "this run does not use the test-set budget")
    position = f"candidate {evidence.candidate_number} of gates.test_budget.at_most {params.at_most} on this test set"
    if evidence.candidate_number <= params.at_most:
        change = f"INCONCLUSIVE from candidate {params.at_most + 1} on this test set on"
        reason = f"{position}, each decided at {evidence.level:.2%}"
        return GateResult(gate="test_budget", outcome=Outcome.PASS, reason=reason, change=change, notes=evidence.budget_notes)
    judged = f"at most {params.shared:.0%} previously judged rows".replace("%", " %")
    change = f"a test set with {judged} (gates.test_budget.shared): newly labelled rows"
    reason = f"{position}: the test set is used up, label more rows or start a new test set"
    return inconclusive("test_budget", reason, change=change, notes=evidence.budget_notes)
