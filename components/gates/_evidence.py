"""What every gate sees and shares: the predictions on one test set, the metrics by name, and how an interval is written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from components.artifacts.metrics import Estimate
from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Outcome
from components.params import Section, nearest
from components.statistics import COMPARABLE, Truth, difference, score

LEVEL = 0.05
"""The error of each deciding gate, one-sided. Promotion needs all of them, so no correction is due (intersection-union)."""

CONFIDENCE = 1 - 2 * LEVEL
"""Each end of the two-sided interval at this level is the bound of a one-sided test at LEVEL."""


@dataclass(frozen=True)
class Evidence:
    """The predictions of one test set, row by row in the same order; `champion_version` names the champion in reasons."""

    candidate: Predictions
    baselines: Mapping[str, Predictions]
    champion: Predictions | None
    champion_version: str | None
    min_class_units: int
    truth: Truth = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "truth", Truth.of(self.candidate, self.min_class_units))

    def score(self, metric: str) -> Estimate:
        """Return the candidate's score with the interval that gates decide on."""
        return score(metric, self.truth, self.candidate.predicted, CONFIDENCE)

    def difference(self, metric: str, other: Predictions) -> Estimate:
        """Return the candidate's score minus that of `other`, with the interval that gates decide on."""
        return difference(metric, self.truth, self.candidate.predicted, other.predicted, CONFIDENCE)


class Gate(Protocol):
    """A file of this folder. `Params` is its section of params.yaml, `decide` never raises or logs for what the data say."""

    Params: type[Section]

    def decide(self, evidence: Evidence, params: Any) -> GateResult:
        """Return the outcome with its evidence and a reason that names the setting to change."""


def known_metric(metric: str) -> str:
    """Return `metric` when gates can decide on it; ValueError, which a section turns into BadParams, when not."""
    if metric not in COMPARABLE:
        raise ValueError(f"unknown metric{nearest(metric, list(COMPARABLE))}")
    return metric


def result(gate: str, outcome: Outcome, reason: str, metric: str, estimate: Estimate, threshold: float) -> GateResult:
    """Return the gate's result with the estimate, the interval it was decided on, and how that was made."""
    return GateResult(
        gate=gate,
        outcome=outcome,
        reason=reason,
        metric=metric,
        estimate=estimate.value,
        low=estimate.low,
        high=estimate.high,
        threshold=threshold,
        n=estimate.n,
        method=f"{estimate.method}; {CONFIDENCE:.0%} interval, each end a one-sided {LEVEL:.0%} bound".replace("%", " %"),
    )


def interval(estimate: Estimate, signed: bool = False) -> str:
    """Write the interval for a reason, as `90 % interval 0.690 to 0.730`."""
    low, high = (f"{end:+.3f}" if signed else f"{end:.3f}" for end in (estimate.low, estimate.high))
    return f"{CONFIDENCE * 100:.0f} % interval {low} to {high}"
