"""All of params.yaml, composed from the sections that the steps own; checked as a whole before any work starts."""

import re
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, field_validator

from components import gates, tasks
from components.base import BaseParams
from components.errors import BadParams
from components.evaluate import EvaluateParams
from components.gates import GatesParams
from components.learning import TrainSection, check_fields
from components.params import Free, Section
from components.preprocess import PreprocessParams, check_copies
from components.snapshot import SnapshotParams
from components.tune import TuneParams, check_metrics, searched
from components.validate import ValidateParams
from components.yardstick import decidable


class PromotionParams(Section):
    """What happens when a verdict was reached."""

    approval: Literal["automatic", "required"] = Field("automatic", description="of a PASS: promote at once | wait for a person")
    expires_days: float = Field(14, gt=0, le=365, description="how long a run waits for a person")


class Params(Section):
    """Everything that makes a model differ from another one."""

    name: str = Field(description="the registered model's name")
    task: str = Field(description="a file of components/tasks")
    task_options: Free = Field(description="the task's own settings; {} for its defaults")
    snapshot: SnapshotParams
    base: BaseParams
    validation: ValidateParams = Field(alias="validate")
    preprocess: PreprocessParams
    tune: TuneParams
    train: TrainSection
    evaluate: EvaluateParams
    gates: GatesParams
    promotion: PromotionParams = Field(default_factory=PromotionParams)

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
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadParams(f"{path} is not YAML: {error}") from None
    if not isinstance(raw, dict):
        raise BadParams(f"{path}: expected a mapping with the sections {', '.join(Params.model_fields)}, found {type(raw).__name__}")
    if "train" in raw:
        TrainSection.parse(raw["train"], "train")  # names its faults as they are written, and not by what `tuned` makes of them
    params = Params.parse(raw, "")
    task = params.made_task
    check_metrics(task.metrics, params.train, params.tune)
    check_fields(params.train.fixed, task.refuses)
    check_copies(params.preprocess, task.refuses)
    gates.check_metrics(params.gates, decidable(task), task.baselines)
    searched(params.tune.space, params.train)
    return params
