"""Better than a baseline: does the transformer earn its cost, row by row on the same test set?"""

from pydantic import Field

from components.artifacts.verdict import GateResult, Outcome, Role
from components.gates._evidence import Evidence, GateSection, hypothesis, interval, result


class Params(GateSection):
    """The baseline that a model must beat, and by how much."""

    role: Role = Field(Role.DECIDES, description="decides | vetoes | shows | off")
    metric: str = Field("macro_f1", description="one of the task's, on the test split")
    against: str = Field("tfidf", description="one of the task's baselines")
    margin: float = Field(0.0, ge=0, description="the lower end of the difference's interval must be above this; in the metric's unit")


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS when the whole interval of the difference is above the margin, else INCONCLUSIVE; it fails by being below."""
    other = evidence.baselines.get(params.against)
    if other is None:
        known = ", ".join(sorted(evidence.baselines)) or "none"
        reason = f"gates.baseline.against: no predictions of {params.against!r}; there are: {known}"
        return GateResult(gate="baseline", outcome=Outcome.INCONCLUSIVE, reason=reason, change="`dvc repro evaluate`")
    estimate = evidence.difference(params.metric, other)
    gain = f"{params.metric} difference {estimate.value:+.3f}"
    setting = f"gates.baseline.margin {params.margin:g} over {params.against} ({interval(estimate, signed=True)})"
    p = evidence.difference_below(params.metric, other, params.margin)
    below = hypothesis(f"no better than {params.against}", f"{gain} is not above {setting}", p, params.metric, estimate)
    if estimate.doubt:
        outcome, reason = Outcome.INCONCLUSIVE, f"{gain} cannot be held against {setting}: {estimate.doubt}"
    elif estimate.low > params.margin:
        outcome, reason = Outcome.PASS, f"{gain} is above {setting}"
    else:
        outcome, reason = Outcome.INCONCLUSIVE, f"{gain} is too close to {setting}; more test rows would decide"
    change = f"PASS with a margin below {estimate.low:+.3f}"
    return result("baseline", outcome, reason, params.metric, estimate, params.margin, evidence, hypotheses=(below,), change=change)
