"""All of params.yaml, composed from the sections that the steps own; checked as a whole before any work starts."""

import functools
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Literal
from zoneinfo import available_timezones

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator

from components.artifacts.manifest import MAIN
from components.core.documents import parse_yaml
from components.core.errors import BadParams
from components.core.section import OpenSection, Section, did_you_mean
from components.data.base_model import BaseParams
from components.data.preprocess import PreprocessParams, check_copies
from components.data.snapshot import SnapshotParams
from components.data.validate import ValidateParams, check_label_map
from components.evaluation.evaluate import EvaluateParams
from components.evaluation.metric_set import decidable_metrics
from components.gates import GatesParams
from components.judge import check_metrics as check_gates
from components.model import tasks
from components.training.trainer import TrainSection, check_fields
from components.training.tune import TuneParams, check_metrics, searched


class PromotionParams(Section):
    """What happens when a verdict was reached."""

    approval: Literal["automatic", "required"] = Field("automatic", description="of a PASS: promote at once | wait for a person")
    expires_days: float = Field(14, gt=0, le=365, description="how long a run waits for a person")


class RetrainParams(Section):
    """When a schedule makes the model anew, and when there is nothing to do."""

    renamed: ClassVar[Mapping[str, str]] = {"late": "on_overlap"}

    cron: str | None = Field(None, description="five fields, as 0 3 * * 1; null: what prefect.yaml says; off: by hand only")
    timezone: str = Field("UTC", description="of the cron's hours, as Europe/Berlin")
    on_overlap: Literal["skip", "queue"] = Field("skip", description="a run that is due while another one of the model is at work")
    min_new_labels: int = Field(0, ge=0, description="labelled rows that are new since the last run; with fewer, nothing is done")

    @field_validator("cron", mode="before")
    @classmethod
    def _off_is_a_word(cls, cron: object) -> object:
        return "off" if cron is False else cron  # YAML 1.1 reads an unquoted off as false

    @field_validator("cron")
    @classmethod
    def _is_a_cron(cls, cron: str | None) -> str | None:
        if cron in (None, "off"):
            return cron
        try:
            CronSim(cron, datetime.now(UTC))
        except CronSimError as error:
            raise ValueError(f"{cron!r} is no cron: {error}; expected minute, hour, day, month, weekday, as 0 3 * * 1") from None
        return cron

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, zone: str) -> str:
        if zone not in available_timezones():
            hint = did_you_mean(zone, sorted(available_timezones())) or ", expected one such as Europe/Berlin"
            raise ValueError(f"unknown time zone {zone!r}{hint}")
        return zone


class Params(Section):
    """Everything that makes a model differ from another one."""

    name: str = Field(description="the registered model's name")
    task: str = Field(description="a file of components/model/tasks")
    task_options: OpenSection = Field(description="the task's own settings; {} for its defaults")
    snapshot: SnapshotParams
    base: BaseParams
    validation: ValidateParams = Field(alias="validate")
    preprocess: PreprocessParams
    tune: TuneParams
    train: TrainSection
    evaluate: EvaluateParams
    gates: GatesParams
    promotion: PromotionParams = Field(default_factory=PromotionParams)
    retrain: RetrainParams = Field(default_factory=RetrainParams)

    @property
    def made_task(self) -> tasks.Task:
        """The task with its settings."""
        return tasks.load(self.task, self.task_options.fields)

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ValueError("a model's name is up to 100 letters, digits, dots, dashes and underscores")
        return name


def read_params(path: Path) -> Params:
    """Read and check a whole params.yaml.

    Raises:
        BadParams: with every fault that was found; also where two sections contradict each other.
    """
    if not path.is_file():
        raise BadParams(f"{path} is missing; `retune init DATA` writes one")
    return _checked(path, path.read_bytes())


@functools.lru_cache(maxsize=16)  # each effect of a run reads the file anew: it may have been edited meanwhile, and seldom was
def _checked(path: Path, content: bytes) -> Params:
    raw = parse_yaml(content, path)
    if not isinstance(raw, dict):
        names = ", ".join(field.alias or name for name, field in Params.model_fields.items())
        raise BadParams(f"{path}: expected a mapping with the sections {names}, found {'nothing' if raw is None else type(raw).__name__}")
    if "train" in raw:
        TrainSection.parse(raw["train"], "train")  # names its faults as they are written, and not by what `tuned` makes of them
    params = Params.parse(raw, "")
    task = params.made_task
    check_metrics(task.validation_metrics, params.train, params.tune)
    check_fields(params.train.fixed, task.unsupported_settings)
    check_copies(params.preprocess, task.unsupported_settings)
    check_label_map(params.validation, task.label_column)
    check_gates(params.gates, decidable_metrics(task), task.baselines)
    _check_bases(params)
    searched(params.tune.space, params.train)
    return params


def _check_bases(params: Params) -> None:
    """Check that `train` and the search name the base models that there are, and all of them.

    Raises:
        BadParams: they do not.
    """
    known, asked = [MAIN, *params.base.others], [params.train.fixed.base]
    if "base" in params.train.tuned:
        asked = [str(name) for name in params.tune.space["base"].choices] if "base" in params.tune.space else known
    where = "tune.space.base" if "base" in params.train.tuned else "train.base"
    if unknown := [name for name in asked if name not in known]:
        raise BadParams(f"params.yaml: {where} names {unknown[0]!r}, and the base models are: {', '.join(known)} (base.others names more)")
    if idle := [name for name in params.base.others if name not in asked]:
        raise BadParams(f"params.yaml: base.others.{idle[0]} is used by nobody: {where} is {', '.join(asked)}")
