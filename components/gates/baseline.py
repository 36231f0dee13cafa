"""Better than a baseline: the paired difference on the test set."""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field

from components.artifacts.metrics import Estimate, best_on_validation
from components.artifacts.verdict import GateResult, Hypothesis, Outcome, Remedy, Role
from components.core.section import nearest
from components.gates.support import ROLE, Evidence, GateSection, MetricName, hypothesis, inconclusive, interval, result
from components.gates.support.noninferiority import left_out_notes, margin_faults
from components.gates.support.remedies import beyond, enough_groups, needed_units

BEST = "best"
STRONGEST = "strongest"
SELECTORS = (BEST, STRONGEST)
"""Values of `against` that are not the name of a baseline."""
PROBE = "probe"
"""The linear probe, a baseline and a training method."""
_NOT_BETTER = "a better candidate, no number of test rows; or `gates.baseline.role: blocking`, which only rejects a candidate that is worse"


class Params(GateSection):
    """The baseline that the candidate must beat, and the margin."""

    role: Role = Field(Role.REQUIRED, description=ROLE)
    metric: MetricName = Field("macro_f1", description="a metric of the task, on the test split")
    against: str = Field(
        "tfidf", description="a baseline of the task; best: the one that is best on the validation split; strongest: every baseline"
    )
    margin: float = Field(0.0, ge=0, description="lower limit for the difference's interval, in the metric's unit")

    def faults(self, metrics: Mapping[str, tuple[float, float]], baselines: Sequence[str]) -> Iterator[str]:
        """Check the metric, the baseline and the margin."""
        yield from super().faults(metrics, baselines)
        if self.against not in (known := [*baselines, *SELECTORS]):
            yield f"against: unknown baseline {self.against!r}{nearest(self.against, known)}"
        yield from margin_faults(self.metric, self.margin, metrics)


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS if the interval of the difference is above the margin, else INCONCLUSIVE; a difference below the margin rejects.

    With `strongest`, this must hold for every baseline: an intersection-union test, which needs no correction. `best` is chosen on other
    rows than the test set, so it needs none either. A candidate that is a linear probe is not compared with itself.
    """
    own = [PROBE] if evidence.method == PROBE and PROBE in evidence.baselines else []
    names = _selected(evidence, params, own)
    if params.against in own:
        reason = "gates.baseline.against: probe: the candidate is itself a linear probe of the base model, so it cannot be better"
        return inconclusive("baseline", reason, change="`gates.baseline.against: best`")
    if not names or any(name not in evidence.baselines for name in names):
        available = ", ".join(sorted(evidence.baselines)) or "none"
        missing = "validation scores" if params.against == BEST and not names else "predictions"
        reason = f"gates.baseline.against: no {missing} of {params.against!r}; available: {available}"
        return inconclusive("baseline", reason, change="`dvc repro evaluate`")
    differences = {name: evidence.difference(params.metric, evidence.baselines[name]) for name in names}
    hardest = min(differences, key=lambda name: (not differences[name].doubt, differences[name].low))
    estimate = differences[hardest]
    gain, limit = _format(estimate, hardest, params)
    hypotheses = tuple(_below(evidence, name, differences[name], params) for name in names)
    notes = list(left_out_notes(evidence, params.metric))
    if own and params.against in SELECTORS:
        notes.append("the baseline probe is left out: the candidate is itself a linear probe")
    change = enough_groups(evidence)
    if estimate.doubt:
        outcome, reason = Outcome.INCONCLUSIVE, f"{gain} cannot be compared with {limit}: {estimate.doubt}"
    elif estimate.low > params.margin:
        outcome, reason = Outcome.PASS, f"{gain} is above {limit}"
    else:
        outcome, reason = Outcome.INCONCLUSIVE, f"{gain} is too close to {limit}"
        change = needed_units(evidence, estimate, params.margin) or _NOT_BETTER
    other = Outcome.INCONCLUSIVE if outcome is Outcome.PASS else Outcome.PASS
    remedy = Remedy(outcome=other, settings={"margin": beyond(estimate.low, outcome is Outcome.PASS, estimate.high - estimate.low)})
    details = {"hypotheses": hypotheses, "change": change, "notes": tuple(notes), "remedies": (remedy,)}
    return result("baseline", outcome, reason, params.metric, estimate, params.margin, evidence, **details)


def _selected(evidence: Evidence, params: Params, own: Sequence[str]) -> list[str]:
    if params.against == STRONGEST:
        return sorted(set(evidence.baselines) - set(own))
    if params.against == BEST:
        best = best_on_validation(evidence.baseline_scores, params.metric, without=own)
        return [best] if best else []
    return [params.against]


def _format(estimate: Estimate, against: str, params: Params) -> tuple[str, str]:
    name = f"{against}, the best baseline on validation" if params.against == BEST else against
    limit = f"gates.baseline.margin {params.margin:g} over {name} ({interval(estimate, signed=True)})"
    return f"{params.metric} difference {estimate.value:+.3f}", limit


def _below(evidence: Evidence, against: str, estimate: Estimate, params: Params) -> Hypothesis:
    p = evidence.difference_below(params.metric, evidence.baselines[against], params.margin)
    gain, limit = _format(estimate, against, params)
    return hypothesis(f"not better than {against}", f"{gain} is not above {limit}", p, params.metric, estimate)
