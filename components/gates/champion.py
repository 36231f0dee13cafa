"""Not worse than the champion: non-inferiority on today's test set, or superiority where that is asked for."""

from typing import Literal, Self

from pydantic import Field, model_validator

from components.artifacts.verdict import GateResult, Outcome, Role
from components.gates.support.evidence import Evidence, GateSection
from components.gates.support.noninferiority import common_rows, compare, new_labels, unknown_labels


class Params(GateSection):
    """How the candidate must stand against the champion, and what happens when that cannot be scored."""

    role: Role = Field(Role.REQUIRED, description="required | blocking | informational | off")
    metric: str = Field("accuracy", description="one of the task's, on the test split")
    aim: Literal["non_inferiority", "superiority"] = Field("non_inferiority", description="superiority: better than the champion")
    margin: float = Field(
        0.02, ge=0, description="non-inferiority: the difference's lower end must be above minus this; in the metric's unit"
    )
    also: tuple[str, ...] = Field(("macro_f1",), description="metrics that veto when worse")
    new_labels: Literal["common", "wrong", "ask"] = Field(
        "common", description="the champion lacks a label: compare on the labels that both know | count as wrong | ask a person"
    )
    unscorable: Literal["ask", "skip"] = Field(
        "ask", description="the champion cannot be scored: ask a person | let the other gates decide"
    )

    @model_validator(mode="after")
    def _one_margin(self) -> Self:
        if self.aim == "superiority" and self.margin > 0:
            raise ValueError(f"aim superiority allows no loss, found margin {self.margin:g}: set margin: 0")
        if self.aim == "non_inferiority" and self.margin == 0:
            raise ValueError("non-inferiority needs a margin above 0; for better than the champion say aim: superiority")
        return self


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS when the difference's interval is above minus the margin, else INCONCLUSIVE; it fails by being worse than the champion."""
    rival = evidence.champion
    if rival is None:
        return GateResult.not_asked("champion", "there is no champion yet, so there is none to be worse than")
    if rival.predictions is None:
        return _unscorable(str(evidence.unscorable), params)
    seen, other, called = evidence, rival.predictions, f"champion {rival.called}"
    differing, new = unknown_labels(evidence, other, rival), new_labels(evidence, other, rival)
    if new and params.new_labels == "ask":
        reason = f"{called} has other labels: {differing}; gates.champion.new_labels says ask"
        return GateResult(gate="champion", outcome=Outcome.INCONCLUSIVE, reason=reason, change="gates.champion.new_labels: common")
    if new and params.new_labels == "common":
        common = common_rows(evidence, other, rival)
        if common is None:
            reason = f"{called} knows none of the test set's labels"
            return GateResult(gate="champion", outcome=Outcome.INCONCLUSIVE, reason=reason, change="gates.champion.new_labels: wrong")
        seen, other = common
    threshold = 0.0 if params.aim == "superiority" else -params.margin
    found = compare("champion", seen, other, called, params.metric, params.margin, threshold, params.also)
    told = f"{differing}; compared on {len(seen.candidate.ids):,} of {len(evidence.candidate.ids):,} rows" if differing else ""
    return found.model_copy(update={"notes": (*found.notes, *([told] * bool(told)))})


def _unscorable(fault: str, params: Params) -> GateResult:
    if params.unscorable == "skip":
        return GateResult.not_asked("champion", f"{fault}; gates.champion.unscorable: skip leaves the decision to the other gates")
    change = "a champion that can be scored (`retune rollback`), or gates.champion.unscorable: skip"
    return GateResult(gate="champion", outcome=Outcome.INCONCLUSIVE, reason=fault, change=change)
