"""The section `tune`: budget, trial and search space."""

import logging
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from components.core.errors import BadParams
from components.core.section import Section, nearest
from components.model.support.feature_cache import DEFAULT_MIB
from components.training.trainer.settings import TrainParams, TrainSection, Value, check_metric

log = logging.getLogger(__name__)

NOT_SEARCHABLE = (
    "epochs",
    "metric",
    "seed",
    "patience",
    "evaluations_per_epoch",
    "stop_after_steps",
    "max_minutes",
    "threads",
    "precision",
    "lora_store",
    "class_biases",
)
"""The fields of `train` that cannot be searched: set by the search itself, making trials incomparable, or without effect on them."""
READ_BY = {
    "auto": ("candidates",),
    "search": ("trials", "epochs", "train_fraction", "evaluations", "prune_after", "explore", "initial_trial", "space"),
}
"""The fields of `tune` that only one strategy reads, by strategy; `none` allows those of `search`, which it switches off."""


class Dimension(Section):
    """A searched field of `train` and its range; with `when`, it is searched only if other fields have the given values."""

    type: Literal["float", "int", "categorical"] = Field(description="type of the values")
    low: float | None = Field(None, description="smallest value, for float and int")
    high: float | None = Field(None, description="largest value, for float and int")
    log: bool = Field(False, description="search the logarithm")
    step: float | None = Field(None, gt=0, description="distance of neighbouring values")
    choices: tuple[Value, ...] = Field((), description="the values, for categorical")
    when: dict[str, Value] = Field(default_factory=dict, description="other fields of train and their required values")

    @model_validator(mode="after")
    def _check_type(self) -> Self:
        if fault := self._fault():
            raise ValueError(fault)
        return self

    def _fault(self) -> str | None:
        if self.type == "categorical":
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                return "low, high, log and step belong to float and int; categorical takes choices"
            return None if self.choices else "categorical needs choices"
        if self.choices:
            return f"choices belong to categorical; {self.type} takes low and high"
        if self.low is None or self.high is None or self.low >= self.high:
            return f"{self.type} needs low below high"
        if self.type == "int" and any(value is not None and value != int(value) for value in (self.low, self.high, self.step)):
            return "int needs whole numbers for low, high and step"
        if self.log and self.low <= 0:
            return "log needs low above 0"
        return "log and step exclude each other" if self.log and self.step is not None else None

    def contains(self, value: Value) -> bool:
        """Return whether `value` is in the range."""
        if self.type == "categorical":
            return value in self.choices
        return isinstance(value, int | float) and self.low is not None and self.high is not None and self.low <= value <= self.high

    def extremes(self) -> tuple[Value, ...]:
        """Return the extreme values, or all choices."""
        if self.type == "categorical":
            return self.choices
        number = int if self.type == "int" else float
        return number(self.low or 0), number(self.high or 0)

    def active(self, settings: Mapping[str, Value]) -> bool:
        """Return whether `settings` have the values that `when` requires."""
        return all(settings.get(name) == value for name, value in self.when.items())


class CandidateChoices(Section):
    """The base models and methods that the strategy `auto` may choose from."""

    bases: tuple[str, ...] = Field((), description="`model` (base.model) and names in base.others; empty: all of them")
    methods: tuple[str, ...] = Field((), description="names of methods, e.g. probe, lora, full; empty: all that the task's portfolio uses")


class TuneParams(Section):
    """How the settings of the training are chosen."""

    renamed: ClassVar[Mapping[str, str]] = {"share": "train_fraction", "first": "initial_trial", "max_minutes": "minutes"}

    strategy: Literal["auto", "search", "none"] = Field(
        "search",
        description="auto: chooses fields that are not set, from the task's portfolio; search: chooses the fields set to `tuned`; none",
    )
    metric: str = Field("macro_f1", description="metric of the validation split that is maximised")
    minutes: float = Field(3, gt=0, le=100_000, description="time over all processes and restarts; no trial starts after it")
    candidates: CandidateChoices = Field(CandidateChoices(), description="auto: limits the choice of base models and methods")
    trials: int = Field(4, ge=1, le=100_000, description="search: number of trials over all processes and restarts")
    train_fraction: float = Field(0.2, gt=0, le=1, description="search: share of the training rows that a trial uses, stratified by class")
    epochs: float = Field(1, gt=0, le=10_000, description="search: epochs of a trial")
    evaluations: int = Field(2, ge=1, le=1_000, description="search: points at which the pruner may stop a trial")
    prune_after: int = Field(2, ge=1, le=10_000, description="search: complete trials before the pruner may stop one")
    explore: int = Field(3, ge=1, le=10_000, description="search: random trials, with `initial_trial`, before the sampler uses others")
    seed: int = Field(7, ge=0, lt=2**32, description="seed of the sampler")
    cache_mib: float = Field(
        DEFAULT_MIB, ge=0, description="maximum size in MiB of var/features, the frozen features of linear probes; 0: none are stored"
    )
    initial_trial: dict[str, Value] = Field(default_factory=dict, description="search: the settings of the first trial")
    space: dict[str, Dimension] = Field(default_factory=dict, description="search: one dimension per searched field of train")

    @model_validator(mode="after")
    def _check_strategy(self) -> Self:
        other = "search" if self.strategy == "auto" else "auto"
        if unread := [name for name in READ_BY[other] if name in self.model_fields_set]:
            raise ValueError(f"strategy {self.strategy} does not read {', '.join(unread)}: remove, or set strategy {other}")
        return self

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        faults = [fault for name, dimension in self.space.items() for fault in _faults(name, dimension, self.space)]
        for name, value in self.initial_trial.items():
            if name not in self.space:
                faults.append(f"initial_trial.{name} is not in the space{nearest(name, list(self.space))}")
            elif not self.space[name].contains(value):
                faults.append(f"initial_trial.{name} {value!r} is outside the range of space.{name}")
        if faults:
            raise ValueError("; ".join(faults))
        sort_by_condition(self.space)
        return self


def searched(space: dict[str, Dimension], train: TrainSection) -> dict[str, Dimension]:
    """Return the dimensions to search, each after the dimensions of its condition.

    Raises:
        BadParams: a field is set to `tuned` and has no dimension.
    """
    if missing := [name for name in train.tuned if name not in space]:
        names = ", ".join(f"train.{name}" for name in missing)
        why = "; it cannot be searched" if missing[0] in NOT_SEARCHABLE else nearest(missing[0], list(space)) if space else ""
        raise BadParams(f"params.yaml: {names} is set to `tuned`, but tune.space has no such dimension{why}")
    for name in space:
        if name not in train.tuned:
            log.warning("tune.space.%s is not searched: train.%s is fixed to %s", name, name, getattr(train.fixed, name))
    return {name: space[name] for name in sort_by_condition(space) if name in train.tuned}


def refuse_declared(tune: TuneParams, train: TrainSection) -> None:
    """Refuse what the strategy `auto` would not read.

    Raises:
        BadParams: fields are set to `tuned`, or `train` has another metric.
    """
    if "metric" in train.fixed.model_fields_set and train.fixed.metric != tune.metric:
        raise BadParams(
            f"params.yaml: train.metric is {train.fixed.metric} and tune.metric is {tune.metric}, but tune.strategy auto has one metric; "
            "remove train.metric"
        )
    if train.tuned:
        raise BadParams(
            f"params.yaml: train.{train.tuned[0]} is set to `tuned`, but tune.strategy is auto, which chooses fields that are not stated; "
            "remove it"
        )


def check_metrics(measured: Sequence[str], train: TrainSection, tune: TuneParams) -> None:
    """Check that the task measures the metrics of the search and of the training.

    Raises:
        BadParams: lists the metrics that are not measured.
    """
    faults = []
    for where, metric in (("train.metric", train.fixed.metric), ("tune.metric", tune.metric)):
        try:
            check_metric(where, metric, measured)
        except BadParams as fault:
            faults.append(str(fault))
    if faults:
        raise BadParams("\n".join(faults))


def _faults(name: str, dimension: Dimension, space: Mapping[str, Dimension]) -> list[str]:
    known = [field for field in TrainParams.model_fields if field not in NOT_SEARCHABLE]
    if name in NOT_SEARCHABLE:
        return [f"space.{name} cannot be searched: it is set in `tune` or fixed in `train`"]
    if name not in known:
        return [f"space.{name} is not a field of train{nearest(name, known)}"]
    faults = []
    for value in dimension.extremes():
        try:
            TrainParams.parse({name: value}, "train")
        except BadParams as error:
            faults.append(f"space.{name}: {str(error).removeprefix('params.yaml: ')}")
    for field, value in dimension.when.items():
        if field not in TrainParams.model_fields:
            faults.append(f"space.{name}.when.{field} is not a field of train{nearest(field, list(TrainParams.model_fields))}")
        elif field in space and not space[field].contains(value):
            faults.append(f"space.{name}.when.{field}: {value!r} is outside the range of space.{field}")
    return faults


def sort_by_condition(space: Mapping[str, Dimension]) -> list[str]:
    """Return the names of the dimensions, each after the dimensions of its condition.

    Raises:
        ValueError: the conditions are circular.
    """
    ordered: list[str] = []
    while len(ordered) < len(space):
        ready = [n for n, d in space.items() if n not in ordered and all(field in ordered or field not in space for field in d.when)]
        if not ready:
            raise ValueError(f"the conditions of {', '.join(sorted(set(space) - set(ordered)))} are circular")
        ordered += ready
    return ordered
