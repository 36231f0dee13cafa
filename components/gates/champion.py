"""Not worse than the champion: non-inferiority on the current test set, or superiority if configured."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from components.artifacts.verdict import GateResult, Role
from components.gates.support import ROLE, Evidence, GateSection, MetricName, inconclusive
from components.gates.support.noninferiority import common_rows, compare, margin_faults, new_labels, unknown_labels


class Params(GateSection):
    """How the candidate must compare with the champion, and what happens if the champion cannot be scored."""

    role: Role = Field(Role.REQUIRED, description=ROLE)
    metric: MetricName = Field("accuracy", description="a metric of the task, on the test split")
    aim: Literal["non_inferiority", "superiority"] = Field("non_inferiority", description="superiority: better than the champion")
    margin: float = Field(
        0.02, ge=0, description="non-inferiority: lower limit for the difference's interval is minus this; in the metric's unit"
    )
    also: tuple[MetricName, ...] = Field(("macro_f1",), description="further metrics that reject if they are worse")
    new_labels: Literal["common", "wrong", "ask"] = Field(
        "common", description="if the champion lacks a label: compare on common labels | count its answers as wrong | ask for approval"
    )
    unscorable: Literal["ask", "skip"] = Field(
        "ask", description="if the champion cannot be scored: ask for approval | let the other gates decide"
    )

    @model_validator(mode="after")
    def _one_margin(self) -> Self:
        if self.aim == "superiority" and self.margin > 0:
            raise ValueError(f"aim superiority allows no loss, found margin {self.margin:g}: set margin: 0")
        if self.aim == "non_inferiority" and self.margin == 0:
            raise ValueError("non-inferiority needs a margin above 0; to require a better model set aim: superiority")
        return self

    def faults(self, metrics: Mapping[str, tuple[float, float]], baselines: Sequence[str]) -> Iterator[str]:
        """Check the metrics and the margin."""
        yield from super().faults(metrics, baselines)
        yield from margin_faults(self.metric, self.margin, metrics)


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS if the difference's interval is above minus the margin, else INCONCLUSIVE; a difference below 0 rejects."""
    champion = evidence.champion
    if champion is None:
        return GateResult.not_applicable("champion", "there is no champion yet")
    if champion.predictions is None:
        fault = str(evidence.champion_fault)
        if params.unscorable == "skip":
            return GateResult.not_applicable("champion", f"{fault}; gates.champion.unscorable: skip leaves the decision to the other gates")
        change = "a champion that can be scored (`retune rollback`), or gates.champion.unscorable: skip"
        return inconclusive("champion", fault, change=change)
    compared, other, name = evidence, champion.predictions, f"champion {champion.display_name}"
    differing, new = unknown_labels(evidence, other, champion), new_labels(evidence, other, champion)
    if new and params.new_labels == "ask":
        reason = f"{name} has other labels: {differing}; gates.champion.new_labels is ask"
        return inconclusive("champion", reason, change="gates.champion.new_labels: common")
    if new and params.new_labels == "common":
        common = common_rows(evidence, other, champion)
        if common is None:
            return inconclusive("champion", f"{name} knows none of the test set's labels", change="gates.champion.new_labels: wrong")
        compared, other = common
    threshold = 0.0 if params.aim == "superiority" else -params.margin
    comparison = compare("champion", compared, other, name, params.metric, params.margin, threshold, params.also)
    if not differing:
        return comparison
    note = f"{differing}; compared on {len(compared.candidate.ids):,} of {len(evidence.candidate.ids):,} rows"
    return comparison.model_copy(update={"notes": (*comparison.notes, note)})
