"""The section `train`: how a model learns. `tune` and `train` both read it; docs/training.md explains each field."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from components.core.errors import BadParams
from components.core.section import Section, current_names, nearest
from components.model import methods
from components.training.trainer.setting_conflicts import setting_conflicts

TUNED = "tuned"
Value = float | int | str | bool | None


class TrainParams(Section):
    """The settings of one training, all concrete."""

    renamed: ClassVar[Mapping[str, str]] = {"lora_registered": "lora_store"}

    base: str = Field("model", description="which base model to start from: `model` is that of base.model; or a name of base.others")
    method: str = Field("full", description="which weights learn: a file of components/model/methods")
    frozen_layers: int = Field(0, ge=-1, le=10_000, description="freeze: layers above the embeddings that stay as in the base; -1: all")
    unfreeze_every: float = Field(
        0.0, ge=0, le=10_000, description="freeze: epochs after which one more layer learns, from the top, embeddings last; 0: never"
    )
    lora_rank: int = Field(8, ge=1, le=65_536, description="lora: rows of the thin matrices")
    lora_alpha: float = Field(16, gt=0, le=65_536, description="lora: an adapter counts lora_alpha / lora_rank times")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="lora: share of an adapter's inputs that are dropped")
    lora_targets: str = Field(
        "default", min_length=1, description="lora: default (peft's for the architecture), all-linear, or names of linear layers"
    )
    lora_dora: bool = Field(False, description="lora: learn length and direction of the weights apart (DoRA)")
    lora_store: Literal["merged", "adapter"] = Field(
        "merged",
        description="lora: what a version stores: the whole model, or what was learnt, which is merged into the base when it is loaded",
    )
    epochs: float = Field(3, gt=0, le=10_000, description="passes over the training rows")
    contrastive_start: float = Field(
        0.0, ge=0, le=10_000, description="epochs before these in which the encoder learns to bring texts of one label together; 0: none"
    )
    learning_rate: float = Field(2e-4, gt=0, le=1, description="peak, after warm-up")
    layer_decay: float = Field(1.0, gt=0, le=1, description="a layer's learning rate is this times that of the layer above; 1: all equal")
    batch_size: int = Field(32, ge=1, le=65_536, description="examples a forward pass")
    accumulation: int = Field(1, ge=1, le=65_536, description="forward passes a step; a step sees batch_size times accumulation examples")
    optimizer: Literal["adamw", "adam", "sgd", "adafactor"] = Field("adamw", description="what turns gradients into steps")
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd: share of the last step that is taken again")
    nesterov: bool = Field(False, description="sgd: look ahead along the momentum")
    schedule: Literal["linear", "cosine", "constant", "polynomial", "plateau"] = Field(
        "linear", description="how the learning rate falls after warm-up"
    )
    schedule_power: float = Field(2.0, gt=0, le=100, description="polynomial: exponent of the remaining share of the steps")
    plateau_factor: float = Field(0.5, gt=0, lt=1, description="plateau: the learning rate is multiplied by this")
    plateau_patience: int = Field(1, ge=0, le=10_000, description="plateau: evaluations without a better metric that are tolerated")
    warmup: float = Field(0.1, ge=0, le=1e9, description="of the learning rate: below 1 a share of the steps, from 1 on a number of steps")
    weight_decay: float = Field(0.01, ge=0, le=10, description="decoupled for adamw and adafactor, added to the gradient for adam and sgd")
    max_grad_norm: float = Field(1.0, gt=0, le=1e6, description="gradients are scaled down to this norm")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all labels")
    dropout: float | None = Field(None, ge=0, lt=1, description="everywhere in the model; null: as the base's config says")
    l1: float = Field(0.0, ge=0, le=10, description="weight of the sum of absolute weights in the loss")
    l2_sp: float = Field(0.0, ge=0, le=1e3, description="weight of half the squared distance to the base's weights, head excluded")
    r_drop: float = Field(0.0, ge=0, le=1e3, description="weight of the divergence between two forward passes with different dropout")
    neftune: float = Field(0.0, ge=0, le=1e3, description="noise on the embeddings: uniform, this / sqrt(tokens x width) at most")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the weights' moving average, which is evaluated and saved; 0: none")
    swa: float = Field(
        0.0, ge=0, lt=1, description="share of the steps, the last ones, whose weights are averaged, evaluated and saved; 0: none"
    )
    evaluations_per_epoch: int = Field(1, ge=1, le=1_000, description="evaluations on the validation split, each with a checkpoint")
    patience: int = Field(2, ge=0, le=10_000, description="evaluations without a better metric before training stops; 0: never")
    metric: str = Field("macro_f1", description="of the validation split; the best checkpoint by it is kept")
    calibration: Literal["none", "temperature"] = Field(
        "none", description="temperature: fitted on the validation split after training; changes probabilities, never an answer"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="of the arithmetic; auto: bfloat16 where hardware has it")
    threads: int = Field(0, ge=0, le=4_096, description="0: every physical core; another count gives other weights")
    max_minutes: float = Field(60, gt=0, description="wall clock over all restarts; training stops cleanly at the limit")
    seed: int = Field(7, ge=0, lt=2**32, description="of the head's weights, the order of the rows and dropout")

    @field_validator("method")
    @classmethod
    def _is_a_file(cls, name: str) -> str:
        if name not in methods.available():
            raise ValueError(methods.unknown_method(name))
        return name

    @field_validator("warmup")
    @classmethod
    def _whole_steps(cls, warmup: float) -> float:
        if warmup >= 1 and warmup != int(warmup):
            raise ValueError("a number of steps (1 and above) must be whole; a share of the steps is below 1")
        return warmup

    @property
    def adapted(self) -> bool:
        """Whether what was learnt is kept apart from the base, to be registered."""
        return self.method == "lora" and self.lora_store == "adapter"

    def own(self) -> dict[str, Any]:
        """Return the fields that the method in force reads, as `Method.prepare` takes them."""
        return {name: getattr(self, name) for name in methods.load(self.method).FIELDS}


def split(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Part the fields that say `tuned` from the others; unknown names stay with the others, which refuse them."""
    raw = current_names(TrainParams, raw, "train")
    tuned = tuple(sorted(name for name, value in raw.items() if value == TUNED and name in TrainParams.model_fields))
    return {"fixed": {name: value for name, value in raw.items() if name not in tuned}, "tuned": tuned}


class TrainSection(Section):
    """The section `train` as written: fixed values, and the names of the fields whose value is the word `tuned`.

    A fixed value, written or by default, always wins over the search.
    """

    fixed: TrainParams
    tuned: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _from_plain(cls, raw: Any) -> Any:
        return split(raw) if isinstance(raw, Mapping) and not isinstance(raw.get("fixed"), TrainParams) else raw

    @classmethod
    def parse(cls, raw: object, where: str) -> Self:
        """Make the section from the plain value found at `where` in params.yaml; faults are named as they are written there.

        Raises:
            BadParams: with every fault of the section in one message; settings that exclude each other are such a fault.
        """
        parts = split(raw) if isinstance(raw, Mapping) else {"fixed": raw, "tuned": ()}
        fixed = TrainParams.parse(parts["fixed"], where)
        section = cls(fixed=fixed, tuned=parts["tuned"])
        _refuse(fixed, where, section.tuned)
        return section

    def settings(self, chosen: Mapping[str, Value]) -> TrainParams:
        """Return the concrete settings: the fixed values, and `chosen` for the fields that say `tuned`.

        Raises:
            BadParams: a field says `tuned` and nothing was chosen for it, or a chosen value does not fit.
        """
        if missing := [name for name in self.tuned if name not in chosen]:
            raise BadParams(f"params.yaml: train.{missing[0]} says `tuned`, and the search chose nothing for it; run `dvc repro tune`")
        return TrainParams.parse(self.fixed.model_dump() | {name: chosen[name] for name in self.tuned}, "train")


def check_metric(where: str, metric: str, measured: Sequence[str]) -> None:
    """Check that the task measures the `metric` that stands at `where` in params.yaml.

    Raises:
        BadParams: it does not.
    """
    if metric not in measured:
        raise BadParams(f"params.yaml: {where} {metric!r} is not measured by the task{nearest(metric, list(measured))}")


def check_fields(settings: TrainParams, refused: Mapping[str, str]) -> None:
    """Check that no field that the task refuses was set.

    Raises:
        BadParams: with every field that was, and the task's reason.
    """
    fields = TrainParams.model_fields
    if found := [name for name in refused if name in fields and getattr(settings, name) != fields[name].default]:
        raise BadParams("\n".join(f"params.yaml: train.{name} is set, and the task refuses it: {refused[name]}" for name in found))


def _refuse(settings: TrainParams, where: str, tuned: Sequence[str]) -> None:
    defaults = {name: field.default for name, field in TrainParams.model_fields.items()}
    if faults := setting_conflicts(settings.model_dump(), defaults, tuned):
        raise BadParams("\n".join(f"params.yaml: {where}.{fault}" for fault in faults))
