"""Better than a baseline: does the transformer earn its cost, row by row on the same test set?"""

from typing import Annotated

from pydantic import AfterValidator, Field

from components.artifacts.metrics import BASELINES
from components.artifacts.verdict import GateResult, Outcome
from components.errors import BadParams
from components.gates._evidence import Evidence, interval, known_metric, result
from components.params import Section, nearest


def _known_baseline(name: str) -> str:
    if name not in BASELINES:
        raise ValueError(f"unknown baseline{nearest(name, list(BASELINES))}")
    return name


class Params(Section):
    """The baseline that a model must beat, and by how much."""

    metric: Annotated[str, AfterValidator(known_metric)] = Field("macro_f1", description="accuracy or macro_f1, on the test split")
    against: Annotated[str, AfterValidator(_known_baseline)] = Field("tfidf", description="majority or tfidf")
    margin: float = Field(0.0, ge=0, lt=1, description="the lower end of the difference's interval must be above this; a share")


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS when the whole interval of the difference is above the margin, FAIL when none of it is, else INCONCLUSIVE.

    Raises:
        BadParams: the baseline was not evaluated.
    """
    if params.against not in evidence.baselines:
        raise BadParams(f"params.yaml: gates.baseline.against: no predictions of {params.against!r}; there are: {_names(evidence)}")
    estimate = evidence.difference(params.metric, evidence.baselines[params.against])
    setting = f"gates.baseline.margin {params.margin:g} over {params.against} ({interval(estimate, signed=True)})"
    if estimate.doubt:
        outcome, reason = Outcome.INCONCLUSIVE, f"cannot be held against {setting}: {estimate.doubt}"
    elif estimate.low > params.margin:
        outcome, reason = Outcome.PASS, f"is above {setting}"
    elif estimate.high <= params.margin:
        outcome, reason = Outcome.FAIL, f"is not above {setting}"
    else:
        outcome, reason = Outcome.INCONCLUSIVE, f"is too close to {setting}; more test rows would decide"
    sentence = f"{params.metric} difference {estimate.value:+.3f} {reason}"
    return result("baseline", outcome, sentence, params.metric, estimate, params.margin)


def _names(evidence: Evidence) -> str:
    return ", ".join(sorted(evidence.baselines)) or "none"
