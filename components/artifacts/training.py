"""`models/trained/training.json`: how the model was made. `models/trained/model/retune.json`: how to ask it."""

from typing import Any, ClassVar

from pydantic import Field

from components.artifacts.base import Artifact


class Training(Artifact):
    """The settings in force, what the machine contributed to the result, and how the training ended.

    `temperature` is that of ModelSpec; where one was fitted, `validation_nll` is the validation rows' mean negative log-likelihood
    (nats) without it and with it.
    """

    FILE: ClassVar[str] = "training.json"

    settings: dict[str, float | int | str | bool | None]
    threads: int
    device: str
    precision: str
    parameters: int
    steps: int
    epochs: float
    best_step: int
    metric: str
    best_value: float
    stopped_by: str
    resumed: int
    seconds: float
    examples_per_second: float
    peak_memory_mib: float
    weights_sha256: str
    temperature: float = 1.0
    validation_nll: tuple[float, float] | None = None


class ModelSpec(Artifact):
    """What a packaged model needs to answer raw input with the code that trained it; logits are divided by `temperature`.

    `labels` is empty where the task has none; `options` are the task's own settings, in full; `base` is the one of the base models that
    it started from, as `train.base` names it.
    """

    FILE: ClassVar[str] = "retune.json"

    task: str
    labels: tuple[str, ...]
    max_length: int
    unicode_form: str
    temperature: float = Field(1.0, gt=0)
    options: dict[str, Any] = Field(default_factory=dict)
    base: str = "model"
