"""The whole params.yaml, composed from the sections of the steps and checked before any work starts."""

import functools
import os
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
from components.data.preprocess.settings import PreprocessParams, check_copies
from components.data.snapshot import SnapshotParams
from components.data.validate.settings import ValidateParams, check_label_map
from components.evaluation.evaluate import EvaluateParams
from components.evaluation.metric_set import decidable_metrics
from components.gates import GatesParams
from components.judge import check_metrics as check_gates
from components.model import tasks
from components.training.trainer import TrainSection, check_fields
from components.training.tune import TuneParams, check_metrics, searched


class PromotionParams(Section):
    """What happens after a verdict."""

    approval: Literal["automatic", "required"] = Field("automatic", description="after PASS: promote at once | wait for approval")
    expires_days: float = Field(14, gt=0, le=365, description="days that a run waits for approval")


class RetrainParams(Section):
    """When a schedule retrains the model."""

    renamed: ClassVar[Mapping[str, str]] = {"late": "on_overlap"}

    cron: str | None = Field(None, description="five fields, e.g. 0 3 * * 1; null: the schedule of prefect.yaml; off: manual runs only")
    timezone: str = Field("UTC", description="time zone of `cron`, e.g. Europe/Berlin")
    on_overlap: Literal["skip", "queue"] = Field("skip", description="a scheduled run while another run of the model is active")
    min_new_labels: int = Field(0, ge=0, description="new labelled rows since the last run that start a retraining")

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
            raise ValueError(f"{cron!r} is not a cron expression: {error}; expected five fields, e.g. 0 3 * * 1") from None
        return cron

    @field_validator("timezone")
    @classmethod
    def _is_a_zone(cls, zone: str) -> str:
        if zone not in available_timezones():
            hint = did_you_mean(zone, sorted(available_timezones()))
            raise ValueError(f"unknown time zone {zone!r}{hint or ', expected e.g. Europe/Berlin'}")
        return zone


class CardParams(Section):
    """What the model card states about the model; empty: unknown, or left out."""

    licence: str = Field("", description="licence of the model, e.g. apache-2.0")
    languages: tuple[str, ...] = Field((), description="languages of the texts, e.g. [en, de]")
    owner: str = Field("", description="person or team that answers for the model")
    intended_use: str = Field("", description="who uses the answers, for what")
    risk_class: str = Field("", description="risk class of the use, e.g. limited (EU AI Act)")


class Params(Section):
    """All settings of a model."""

    name: str = Field(description="the registered model's name")
    task: str = Field(description="a task of components/model/tasks; `retune tasks` lists them")
    task_options: OpenSection = Field(description="settings of the task; {}: its defaults")
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
    card: CardParams = Field(default_factory=CardParams)

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
    """Read and check a whole params.yaml; raise BadParams with every fault, also for sections that contradict each other."""
    if not path.is_file():
        raise BadParams(f"{path} is missing; `retune init DATA` writes one")
    try:
        return _checked(path, path.read_bytes())
    except BadParams as error:
        raise BadParams(re.sub(r"^params\.yaml: ", f"{_shown(path)}: ", str(error), flags=re.MULTILINE)) from None


def _shown(path: Path) -> str:
    """Return a path relative to the working folder if it is in it."""
    return os.path.relpath(path) if path.is_absolute() and path.is_relative_to(Path.cwd()) else str(path)


@functools.lru_cache(maxsize=16)  # every action reads the file again, since it may have been edited
def _checked(path: Path, content: bytes) -> Params:
    raw = parse_yaml(content, path)
    if not isinstance(raw, dict):
        names = ", ".join(field.alias or name for name, field in Params.model_fields.items())
        raise BadParams(f"{path}: expected a mapping with the sections {names}, found {'nothing' if raw is None else type(raw).__name__}")
    if "train" in raw:
        TrainSection.parse(raw["train"], "train")  # reports faults by the written names, before `tuned` is resolved
    params = Params.parse(raw, "")
    _check_together(params)
    return params


def _check_together(params: Params) -> None:
    """Raise BadParams with all contradictions between the sections, most often those of another task."""
    task, faults = params.made_task, list[str]()
    for check in (
        lambda: check_metrics(task.validation_metrics, params.train, params.tune),
        lambda: check_fields(params.train.fixed, task.unsupported_settings),
        lambda: check_copies(params.preprocess, task.unsupported_settings),
        lambda: check_label_map(params.validation, task.label_column),
        lambda: check_gates(params.gates, decidable_metrics(task), task.baselines),
        lambda: _check_bases(params),
        lambda: searched(params.tune.space, params.train),
    ):
        try:
            check()
        except BadParams as fault:
            faults.append(str(fault))
    if len(faults) > 1:
        needed = ", ".join(task.columns)
        faults.append(
            f"the task {params.task} reads the columns {needed} (snapshot.columns maps yours); after a change of `task`, `retune init DATA "
            f"--task {params.task} --params FILE --force` writes all sections for it"
        )
    if faults:
        raise BadParams("\n".join(faults))


def _check_bases(params: Params) -> None:
    """Raise BadParams unless `train` and `tune` use exactly the configured base models."""
    configured, used = [MAIN, *params.base.others], [params.train.fixed.base]
    if "base" in params.train.tuned:
        used = [str(name) for name in params.tune.space["base"].choices] if "base" in params.tune.space else configured
    setting = "tune.space.base" if "base" in params.train.tuned else "train.base"
    if params.tune.strategy == "auto" and "base" not in params.train.fixed.model_fields_set:
        used, setting = list(params.tune.candidates.bases) or configured, "tune.candidates.bases"
    if unknown := [name for name in used if name not in configured]:
        raise BadParams(
            f"params.yaml: {setting} names {unknown[0]!r}, but the base models are: {', '.join(configured)} (add others to base.others)"
        )
    if unused := [name for name in params.base.others if name not in used]:
        raise BadParams(f"params.yaml: base.others.{unused[0]} is not used: {setting} is {', '.join(used)}")
