"""Absolute floor: a minimum score, independent of other models."""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field

from components.artifacts.verdict import GateResult, Outcome, Remedy, Role
from components.gates.support import ROLE, Evidence, GateSection, MetricName, beyond, hypothesis, interval, result
from components.gates.support.noninferiority import left_out_notes
from components.gates.support.remedies import enough_groups, needed_units


class Params(GateSection):
    """The minimum score."""

    role: Role = Field(Role.REQUIRED, description=ROLE)
    metric: MetricName = Field("macro_f1", description="a metric of the task, on the test split")
    at_least: float = Field(0.65, description="minimum for the lower end of the metric's interval, in the metric's unit")

    def faults(self, metrics: Mapping[str, tuple[float, float]], baselines: Sequence[str]) -> Iterator[str]:
        """Check the metric, and that the floor is within its bounds."""
        yield from super().faults(metrics, baselines)
        if bounds := metrics.get(self.metric):
            low, high = bounds
            if not low < self.at_least < high:
                yield f"at_least: expected a {self.metric} above {low:g} and below {high:g}, found {self.at_least:g}"


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS if the whole interval reaches the floor, else INCONCLUSIVE; a score below the floor rejects."""
    estimate, floor = evidence.score(params.metric), params.at_least
    score, setting = f"{params.metric} {estimate.value:.3f}", f"gates.floor.at_least {floor:g} ({interval(estimate)})"
    below = hypothesis("below the floor", f"{score} is below {setting}", evidence.below(params.metric, floor), params.metric, estimate)
    change = enough_groups(evidence)
    if estimate.doubt:
        outcome, reason = Outcome.INCONCLUSIVE, f"{score} cannot be compared with {setting}: {estimate.doubt}"
    elif estimate.low >= floor:
        outcome, reason = Outcome.PASS, f"{score} reaches {setting}"
    else:
        outcome, reason = Outcome.INCONCLUSIVE, f"{score} is too close to {setting}"
        change = needed_units(evidence, estimate, floor)
    other = Outcome.INCONCLUSIVE if outcome is Outcome.PASS else Outcome.PASS
    nearest = beyond(estimate.low, outcome is Outcome.PASS, estimate.high - estimate.low)
    remedy = Remedy(outcome=other, settings={"at_least": nearest})
    details = {"notes": left_out_notes(evidence, params.metric), "hypotheses": (below,), "change": change, "remedies": (remedy,)}
    return result("floor", outcome, reason, params.metric, estimate, floor, evidence, **details)
