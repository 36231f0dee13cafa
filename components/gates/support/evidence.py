"""What every gate sees and shares: the predictions on one test set, the metrics by name, and how an interval is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, field_validator

from components.artifacts.behaviour import Behaviour
from components.artifacts.cost import Cost
from components.artifacts.metrics import Estimate
from components.artifacts.past_test_set import PastTestSet
from components.artifacts.predictions import Predictions
from components.artifacts.served_answers import ServedAnswers
from components.artifacts.verdict import GateResult, Hypothesis, Outcome, Role
from components.core.section import Section, warn_once
from components.gates.support.overlap import TestExposure
from components.stats import ClassificationMetrics, MetricSet, Truth, Units

LEVEL = 0.05
"""The error of a promotion, one-sided, over all looks at one test set; and of a rejection, over all hypotheses together.

Promotion needs all deciding gates, so no correction is due among them (intersection-union)."""


@dataclass(frozen=True)
class ReferenceModel:
    """A version that the candidate is compared with: its predictions on the same rows, or the `fault` for which there are none.

    Where answers are made of labels and are no classes, as tags are: `unknown` are those of today's rows that it was not made with, and
    `known` (rows,) says which rows have none of them; None where it knows all.
    """

    version: str | None
    predictions: Predictions | None
    fault: str | None = None
    unknown: tuple[str, ...] = ()
    known: npt.NDArray[np.bool_] | None = None

    @property
    def called(self) -> str:
        """What reasons call it."""
        return f"version {self.version}" if self.version else "the champion"


@dataclass(frozen=True)
class TrainingRows:
    """The rows (id, text, label) that one or more versions learnt from, or the `fault` for which they are not at hand.

    `by` says who has learnt them: the `champion`, the `anchor` or the `candidate`, each with the registered versions that it was
    fine-tuned from (`inherited`), or `earlier` champions, which nothing is compared with.
    """

    called: str
    rows: pd.DataFrame | None
    fault: str | None = None
    by: Literal["candidate", "champion", "anchor", "earlier"] = "champion"
    inherited: bool = False

    @property
    def compared(self) -> bool:
        """Whether a model that is compared has learnt them."""
        return self.by != "earlier"


@dataclass(frozen=True)
class Evidence:
    """What the gates decide on. `candidate`, `baselines`, `champion` and `anchor` are of one test set, row by row in the same order.

    `champion` and `anchor` (the best champion so far) are None where there is none. `rows` are the test rows in the order of the
    predictions with all their columns, `train` the rows that the candidate learnt from, those it was validated on included, and `seen`
    those of the other versions. `held` says which test rows were left out, as a compared model has learnt them. `earlier` are test sets of
    the past with both models' answers. `level` is the one-sided error of a deciding gate, `look` which candidate on this test set this is,
    and `wear` how that was counted. What was measured for a single gate stands in a field of its own, None where it was not. `crosscheck`
    asks for the slower second opinions that are shown and never decide. `yardstick` is what the test set is measured by, and `parts` what
    the task cuts it into, the value of each row by kind.
    Without `one_answer` equal texts may have different labels, and are no contradiction.
    """

    candidate: Predictions
    baselines: Mapping[str, Predictions]
    champion: ReferenceModel | None
    min_class_units: int
    anchor: ReferenceModel | None = None
    level: float = LEVEL
    look: int | None = None
    wear: tuple[str, ...] = ()
    rows: pd.DataFrame | None = None
    train: pd.DataFrame | None = None
    seen: tuple[TrainingRows, ...] = ()
    held: TestExposure | None = None
    earlier: tuple[PastTestSet, ...] = ()
    crosscheck: bool = True
    served: ServedAnswers | None = None
    behaviour: Behaviour | None = None
    cost: Cost | None = None
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    one_answer: bool = True
    yardstick: MetricSet = field(default=None)  # type: ignore[assignment]  # of classes, where none is handed over

    def __post_init__(self) -> None:
        if self.yardstick is None:
            object.__setattr__(self, "yardstick", ClassificationMetrics.from_predictions(self.candidate, self.min_class_units))

    @property
    def classes(self) -> bool:
        """Whether the answers are classes, with probabilities."""
        return isinstance(self.yardstick, ClassificationMetrics)

    @property
    def truth(self) -> Truth:
        """The expected classes; only where there are classes."""
        assert isinstance(self.yardstick, ClassificationMetrics)
        return self.yardstick.truth

    @property
    def units(self) -> Units:
        """The independent units of the test set."""
        return self.yardstick.units

    @property
    def main(self) -> str:
        """The metric that parts of the test set are compared by: accuracy, or a task's first measure."""
        return self.yardstick.metrics[0]

    def on(self, rows: npt.NDArray[np.bool_]) -> "Evidence":
        """Return the evidence on some of the rows: the candidate's answers and what they are measured by."""
        own = self.candidate.take(rows)
        return Evidence(own, {}, None, self.min_class_units, level=self.level, crosscheck=self.crosscheck, yardstick=self.yardstick.on(own))

    @property
    def confidence(self) -> float:
        """Each end of the two-sided interval at this confidence is the bound of a one-sided test at `level`."""
        return 1 - 2 * self.level

    @property
    def unscorable(self) -> str | None:
        """Why there is a champion and nothing can be compared with it; None where there is none, or it answered."""
        rival = self.champion
        return f"champion {rival.called} cannot be scored: {rival.fault}" if rival is not None and rival.predictions is None else None

    def score(self, metric: str) -> Estimate:
        """Return the candidate's score with the interval that gates decide on."""
        return self.yardstick.score(metric, self.candidate, self.confidence)

    def difference(self, metric: str, other: Predictions) -> Estimate:
        """Return the candidate's score minus that of `other`, with the interval that gates decide on."""
        return self.yardstick.difference(metric, self.candidate, other, self.confidence)

    def below(self, metric: str, threshold: float) -> float:
        """Return the p that the candidate's score is at least `threshold`."""
        return self.yardstick.below(metric, self.candidate, threshold)

    def difference_below(self, metric: str, other: Predictions, threshold: float = 0.0) -> float:
        """Return the p that the candidate's score minus that of `other` is at least `threshold`."""
        return self.yardstick.difference_below(metric, self.candidate, other, threshold)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Which rows the candidate has right, shape (rows,)."""
        return np.asarray(self.candidate.predicted == self.candidate.expected)


class GateSection(Section):
    """The section of a gate: every gate has a role."""

    role: Role = Field(Role.BLOCKING, description="required (promotion needs it) | blocking (can only reject) | informational | off")

    @field_validator("role", mode="before")
    @classmethod
    def _off_is_a_word(cls, role: Any) -> Any:
        """Read YAML 1.1's `off`, which is false without quotes, and the names of the release before."""
        if role in ("decides", "vetoes", "shows"):
            warn_once(f"params.yaml: gates: role: {role} is now role: {Role(role)}; the old name works in this release only")
            return Role(role)
        return Role.OFF if role is False else role


class Gate(Protocol):
    """A file of this folder. `Params` is its section of params.yaml, `decide` never raises or logs for what the data say."""

    Params: type[GateSection]

    def decide(self, evidence: Evidence, params: Any) -> GateResult:
        """Return PASS or INCONCLUSIVE with the evidence, and hand over what the gate may fail by as hypotheses.

        FAIL is for what was counted, not estimated: statistics reject through the panel, which corrects all of them together.
        """


def result(
    gate: str, outcome: Outcome, reason: str, metric: str, estimate: Estimate, threshold: float, evidence: Evidence, **rest: Any
) -> GateResult:
    """Return the gate's result with the estimate, the interval it was decided on, and how that was made."""
    level = f"{evidence.level:.1%}".replace(".0%", "%").replace("%", " %")
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
        method=f"{estimate.method}; {evidence.confidence * 100:.0f} % interval, each end a one-sided {level} bound",
        **rest,
    )


def hypothesis(name: str, says: str, p: float, metric: str, estimate: Estimate) -> Hypothesis:
    """Return one way to fail; a p that cannot be computed counts as no evidence at all."""
    usable = p if np.isfinite(p) and not estimate.doubt else 1.0
    return Hypothesis(
        name=name, says=says, p=usable, metric=metric, estimate=estimate.value, low=estimate.low, high=estimate.high, n=estimate.n
    )


def interval(estimate: Estimate, signed: bool = False) -> str:
    """Write the interval for a reason, as `90 % interval 0.690 to 0.730`."""
    low, high = (f"{end:+.3f}" if signed else f"{end:.3f}" for end in (estimate.low, estimate.high))
    return f"{estimate.confidence * 100:.0f} % interval {low} to {high}"
