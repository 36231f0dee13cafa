"""Not worse than the champion: non-inferiority on today's test set, row by row.

Inside the margin is what the margin means: a candidate that is a little worse, and by no more than the margin, passes.
"""

from typing import Annotated

from pydantic import AfterValidator, Field

from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Outcome
from components.gates._evidence import Evidence, interval, known_metric, result
from components.params import Section


class Params(Section):
    """How much worse than the champion a candidate may be."""

    metric: Annotated[str, AfterValidator(known_metric)] = Field("accuracy", description="accuracy or macro_f1, on the test split")
    margin: float = Field(0.02, ge=0, lt=1, description="non-inferiority: the difference's lower end must be above minus this; a share")


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS when the difference's interval is above minus the margin, FAIL when it then lies below zero, else INCONCLUSIVE."""
    if evidence.champion is None:
        return GateResult(gate="champion", outcome=Outcome.PASS, reason="there is no champion yet, so there is none to be worse than")
    estimate = evidence.difference(params.metric, evidence.champion)
    name = f"champion version {evidence.champion_version}" if evidence.champion_version else "the champion"
    setting = f"gates.champion.margin {params.margin:g} ({interval(estimate, signed=True)})"
    if estimate.doubt:
        outcome, reason = Outcome.INCONCLUSIVE, f"cannot be held against {setting}: {estimate.doubt}"
    elif estimate.low > -params.margin:
        outcome, reason = Outcome.PASS, f"is within {setting}"
    elif estimate.high < 0:
        outcome, reason = Outcome.FAIL, f"is worse than zero, and may be worse than {setting}"
    else:
        outcome, reason = Outcome.INCONCLUSIVE, f"does not settle {setting}; more test rows would decide"
    sentence = f"{params.metric} difference {estimate.value:+.3f} to {name} {reason}{_strangers(evidence, evidence.champion)}"
    return result("champion", outcome, sentence, params.metric, estimate, -params.margin)


def _strangers(evidence: Evidence, champion: Predictions) -> str:
    """Say which labels only one of the two knows: a row whose label a model does not have counts as wrong for it."""
    new = sorted(set(evidence.candidate.labels) - set(champion.labels))
    gone = sorted(set(champion.labels) - set(evidence.candidate.labels))
    said = f"; the champion cannot predict {', '.join(new)}, which counts as wrong" if new else ""
    return said + (f"; its answers {', '.join(gone)} are no longer labels and count as wrong" if gone else "")
