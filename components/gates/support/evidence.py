"""Evidence that gates decide on, the gate protocol, and helpers that build a gate's result."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol, get_args

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
from components.core.section import Section, nearest, warn_once
from components.gates.support.overlap import TestExposure
from components.stats.metric_sets import MetricSet
from components.stats.scores import classification
from components.stats.true_classes import TrueClasses
from components.stats.units import Units

Need = Literal["best_champion", "candidate_number", "training_rows", "past_test_sets", "served", "behaviour", "cost"]
"""A field of `Evidence` that is only gathered if an enabled gate declares it in `NEEDS`."""

LEVEL = 0.05
"""One-sided error of a promotion, over all candidates of one test set; also of a rejection, over all hypotheses together.

Promotion requires every required gate, so the required gates need no correction among themselves (intersection-union test)."""


@dataclass(frozen=True)
class ReferenceModel:
    """A version that the candidate is compared with: its predictions on the same rows, or `fault` if they are unavailable.

    For label-based answers such as tags, `unknown_labels` lists labels of the test rows that this version was not trained on, and
    `known_rows` (rows,) marks the rows without such labels; None if it knows all labels.
    """

    version: str | None
    predictions: Predictions | None
    fault: str | None = None
    unknown_labels: tuple[str, ...] = ()
    known_rows: npt.NDArray[np.bool_] | None = None

    @property
    def display_name(self) -> str:
        """Name in messages."""
        return f"version {self.version}" if self.version else "the champion"


@dataclass(frozen=True)
class TrainingRows:
    """Rows (id, text, label) that one or more versions were trained on, or `fault` if they are unavailable.

    `by` is the model that was trained on them: `champion`, `best_champion`, `candidate`, or `earlier` champions, which are not compared
    with the candidate. `inherited` rows are those of a registered version that the model was fine-tuned from.
    """

    display_name: str
    rows: pd.DataFrame | None
    fault: str | None = None
    by: Literal["candidate", "champion", "best_champion", "earlier"] = "champion"
    inherited: bool = False

    @property
    def compared(self) -> bool:
        """Whether a compared model was trained on them."""
        return self.by != "earlier"


@dataclass(frozen=True)
class Evidence:
    """The input of every gate. All predictions are on one test set, row by row in the same order.

    Always present:
        candidate, baselines: predictions of the candidate, and of the baselines by name.
        baseline_scores: the metrics of each baseline on the validation rows.
        method: the training method of the candidate.
        champion: the current champion; None if there is none yet.
        min_class_units: `evaluate.min_class_units`, the test rows (or groups) that a class needs to count in macro-F1.
        level: one-sided error of a required gate.
        rows: test rows with all their columns, in the order of the predictions.
        train: rows that the candidate was trained and validated on.
        exposure: test rows that a compared model was trained on; they are excluded from all predictions here.
        task_slices: slices that the task defines: name of the slice to the value of each row.
        one_answer: False if equal texts may have different labels.
        metric_set: the metrics of the task; those of classification by default.
        crosscheck: whether to compute slower second opinions, which never decide.

    Gathered on demand, None or empty unless an enabled gate declares it in `NEEDS`:
        best_champion: the best champion so far, if it is not the current one.
        candidate_number, budget_notes: position of this candidate in the test-set budget, and how it was counted.
        training_rows: training rows of the other versions; without the need, only those of the compared ones.
        past_test_sets: earlier test sets with both models' answers.
        served, behaviour, cost: answers of the scoring server, behaviour cases, latency and memory.
    """

    candidate: Predictions
    baselines: Mapping[str, Predictions]
    champion: ReferenceModel | None
    min_class_units: int
    baseline_scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    method: str = ""
    best_champion: ReferenceModel | None = None
    level: float = LEVEL
    candidate_number: int | None = None
    budget_notes: tuple[str, ...] = ()
    rows: pd.DataFrame | None = None
    train: pd.DataFrame | None = None
    training_rows: tuple[TrainingRows, ...] = ()
    exposure: TestExposure | None = None
    past_test_sets: tuple[PastTestSet, ...] = ()
    crosscheck: bool = True
    served: ServedAnswers | None = None
    behaviour: Behaviour | None = None
    cost: Cost | None = None
    task_slices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    one_answer: bool = True
    metric_set: MetricSet = field(default=None)  # type: ignore[assignment]  # set in __post_init__

    def __post_init__(self) -> None:
        if self.metric_set is None:
            object.__setattr__(self, "metric_set", classification(self.candidate, self.min_class_units))

    @property
    def classes(self) -> bool:
        """Whether the answers are classes with probabilities."""
        return self.metric_set.truth is not None

    @property
    def truth(self) -> TrueClasses:
        """The expected classes; only for classification."""
        assert self.metric_set.truth is not None
        return self.metric_set.truth

    @property
    def units(self) -> Units:
        """The independent units of the test set: groups, or rows if there are no groups."""
        return self.metric_set.units

    @property
    def main_metric(self) -> str:
        """The metric for slices and past test sets: accuracy, or the first metric of the task."""
        return self.metric_set.metrics[0]

    def take(self, rows: npt.NDArray[np.bool_]) -> "Evidence":
        """Return the candidate's predictions and the metrics on a subset of the rows, without any model to compare with."""
        candidate = self.candidate.take(rows)
        metrics = self.metric_set.on(candidate)
        return Evidence(candidate, {}, None, self.min_class_units, level=self.level, crosscheck=self.crosscheck, metric_set=metrics)

    @property
    def confidence(self) -> float:
        """Confidence of a two-sided interval, each end of which is the bound of a one-sided test at `level`."""
        return 1 - 2 * self.level

    @property
    def champion_fault(self) -> str | None:
        """Why the champion cannot be compared; None if it can, or if there is no champion."""
        champion = self.champion
        unusable = champion is not None and champion.predictions is None
        return f"champion {champion.display_name} cannot be scored: {champion.fault}" if champion is not None and unusable else None

    def score(self, metric: str) -> Estimate:
        """Return the candidate's score with the interval that gates decide on."""
        return self.metric_set.score(metric, self.candidate, self.confidence)

    def difference(self, metric: str, other: Predictions) -> Estimate:
        """Return the candidate's score minus that of `other`, with the interval that gates decide on."""
        return self.metric_set.difference(metric, self.candidate, other, self.confidence)

    def below(self, metric: str, threshold: float) -> float:
        """Return the p-value of "the candidate's score is at least `threshold`"."""
        return self.metric_set.below(metric, self.candidate, threshold)

    def difference_below(self, metric: str, other: Predictions, threshold: float = 0.0) -> float:
        """Return the p-value of "the candidate's score minus that of `other` is at least `threshold`"."""
        return self.metric_set.difference_below(metric, self.candidate, other, threshold)

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Rows that the candidate answers correctly (rows,)."""
        return np.asarray(self.candidate.predicted == self.candidate.expected)


ROLE = "effect of the gate's outcome: see Roles in gates.md"


_OF_TASK = "a metric of the task"
MetricName = Annotated[str, _OF_TASK]
"""The type of a setting that names a metric of the task: the name is checked when params.yaml is read."""


class GateSection(Section):
    """Base class of a gate's settings: every gate has a role."""

    role: Role = Field(Role.BLOCKING, description=ROLE)

    def faults(self, metrics: Mapping[str, tuple[float, float]], baselines: Sequence[str]) -> Iterator[str]:
        """Yield what is wrong for a task with these `metrics`, each with its bounds, and `baselines`, as `SETTING: fault`.

        Finds unknown names in settings of type `MetricName`, or a tuple of it. A gate may override it to check more.
        """
        for setting, info in type(self).model_fields.items():
            if _OF_TASK in info.metadata or _names_metrics(info.annotation):
                value = getattr(self, setting)
                for metric in (value,) if isinstance(value, str) else value or ():
                    if metric not in metrics:
                        yield f"{setting}: unknown metric {metric!r}{nearest(metric, list(metrics))}"

    @field_validator("role", mode="before")
    @classmethod
    def _read_role(cls, role: Any) -> Any:
        """Accept an unquoted `off`, which YAML 1.1 reads as false, and the role names of the previous release."""
        if role in ("decides", "vetoes", "shows"):
            warn_once(f"params.yaml: gates: role: {role} is now role: {Role(role)}; the old name works in this release only")
            return Role(role)
        return Role.OFF if role is False else role


def _names_metrics(annotation: Any) -> bool:
    parts = get_args(annotation)
    return _OF_TASK in parts or any(map(_names_metrics, parts))


class Gate(Protocol):
    """A module `components/gates/NAME.py`: its settings, its decision, and optionally the evidence that must be gathered for it."""

    Params: type[GateSection]
    """Section `gates.NAME` of params.yaml. Its method `faults` checks it against the task."""

    NEEDS: frozenset[Need]
    """Evidence to gather when the gate is enabled; see `evidence_settings` for how. Optional: a module without it needs none."""

    def decide(self, evidence: Evidence, params: Any) -> GateResult:
        """Return PASS or INCONCLUSIVE with the evidence, and the ways to fail as hypotheses; neither raise nor log.

        Return FAIL only for something counted, not estimated: a statistical rejection follows from the hypotheses, which are
        corrected for multiple testing over all gates.
        """


def result(
    gate: str, outcome: Outcome, reason: str, metric: str, estimate: Estimate, threshold: float, evidence: Evidence, **fields: Any
) -> GateResult:
    """Return a gate's result with the estimate, its interval and the method; `fields` are further fields of `GateResult`."""
    level = f"{evidence.level:.1%}".replace(".0%", "%").replace("%", " %")
    method = f"{estimate.method}; {evidence.confidence * 100:.0f} % interval, each end a one-sided {level} bound"
    fields |= {"threshold": threshold, "method": method}
    return GateResult(gate=gate, outcome=outcome, reason=reason, metric=metric, **measured(estimate), **fields)


def inconclusive(gate: str, reason: str, **fields: Any) -> GateResult:
    """Return the result of a gate that cannot decide, without an estimate."""
    return GateResult(gate=gate, outcome=Outcome.INCONCLUSIVE, reason=reason, **fields)


def hypothesis(name: str, reason: str, p: float, metric: str, estimate: Estimate) -> Hypothesis:
    """Return one way to fail, with its one-sided p-value and the `reason` of the FAIL if it is rejected.

    A p-value that cannot be computed counts as 1, that is as no evidence against the candidate.
    """
    usable = p if np.isfinite(p) and not estimate.doubt else 1.0
    return Hypothesis(name=name, says=reason, p=usable, metric=metric, **measured(estimate))


def measured(estimate: Estimate) -> dict[str, Any]:
    """Return the fields of a result or hypothesis that describe an estimate."""
    return {"estimate": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def interval(estimate: Estimate, signed: bool = False) -> str:
    """Format the interval for a reason, e.g. `90 % interval 0.690 to 0.730`."""
    low, high = (f"{end:+.3f}" if signed else f"{end:.3f}" for end in (estimate.low, estimate.high))
    return f"{estimate.confidence * 100:.0f} % interval {low} to {high}"
