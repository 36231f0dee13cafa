"""Better than a baseline: does the transformer earn its cost, row by row on the same test set?"""

from pydantic import Field

from components.artifacts.metrics import Estimate
from components.artifacts.verdict import GateResult, Hypothesis, Outcome, Role
from components.gates.support.evidence import Evidence, GateSection, hypothesis, interval, result

STRONGEST = "strongest"


class Params(GateSection):
    """The baseline that a model must beat, and by how much."""

    role: Role = Field(Role.REQUIRED, description="required | blocking | informational | off")
    metric: str = Field("macro_f1", description="one of the task's, on the test split")
    against: str = Field("tfidf", description="one of the task's baselines, or strongest: each of them")
    margin: float = Field(0.0, ge=0, description="the lower end of the difference's interval must be above this; in the metric's unit")


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS when the whole interval of the difference is above the margin, else INCONCLUSIVE; it fails by being below.

    Against the strongest, the interval to each baseline must be: an intersection-union test, which needs no correction.
    """
    named = sorted(evidence.baselines) if params.against == STRONGEST else [params.against]
    if not named or any(name not in evidence.baselines for name in named):
        known = ", ".join(sorted(evidence.baselines)) or "none"
        reason = f"gates.baseline.against: no predictions of {params.against!r}; there are: {known}"
        return GateResult(gate="baseline", outcome=Outcome.INCONCLUSIVE, reason=reason, change="`dvc repro evaluate`")
    found = {name: evidence.difference(params.metric, evidence.baselines[name]) for name in named}
    hardest = min(found, key=lambda name: (not found[name].doubt, found[name].low))
    estimate = found[hardest]
    (gain, setting), ways = _said(estimate, hardest, params), tuple(_below(evidence, name, found[name], params) for name in named)
    if estimate.doubt:
        outcome, reason = Outcome.INCONCLUSIVE, f"{gain} cannot be held against {setting}: {estimate.doubt}"
    elif estimate.low > params.margin:
        outcome, reason = Outcome.PASS, f"{gain} is above {setting}"
    else:
        outcome, reason = Outcome.INCONCLUSIVE, f"{gain} is too close to {setting}; more test rows would decide"
    change = f"PASS with a margin below {estimate.low:+.3f}"
    return result("baseline", outcome, reason, params.metric, estimate, params.margin, evidence, hypotheses=ways, change=change)


def _said(estimate: Estimate, against: str, params: Params) -> tuple[str, str]:
    """Return the difference to a baseline, and what it is held against."""
    setting = f"gates.baseline.margin {params.margin:g} over {against} ({interval(estimate, signed=True)})"
    return f"{params.metric} difference {estimate.value:+.3f}", setting


def _below(evidence: Evidence, against: str, estimate: Estimate, params: Params) -> Hypothesis:
    """Return the hypothesis that the candidate is no better than a baseline."""
    p = evidence.difference_below(params.metric, evidence.baselines[against], params.margin)
    gain, setting = _said(estimate, against, params)
    return hypothesis(f"no better than {against}", f"{gain} is not above {setting}", p, params.metric, estimate)
