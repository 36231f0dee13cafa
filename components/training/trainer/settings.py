"""The section `train`: the settings of a training, read by `tune` and `train`; docs/training.md explains each field."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from components.core import plugins
from components.core.errors import BadParams
from components.core.section import Section, current_names, nearest
from components.model import methods
from components.model.methods import lora

TUNED = "tuned"
Value = float | int | str | bool | None

_USED_IF: dict[str, tuple[str, tuple[str, ...]]] = {
    "momentum": ("optimizer", ("sgd",)),
    "nesterov": ("optimizer", ("sgd",)),
    "schedule_power": ("schedule", ("polynomial",)),
    "plateau_factor": ("schedule", ("plateau",)),
    "plateau_patience": ("schedule", ("plateau",)),
    "swa": ("schedule", ("constant",)),  # an average over falling learning rates is hardly an average
}
_LENGTH = ("epochs", "contrastive_start")
_OF_TRAINING = (
    *("epochs", "contrastive_start", "learning_rate", "accumulation", "optimizer", "schedule", "warmup", "weight_decay", "max_grad_norm"),
    *("label_smoothing", "dropout", "l1", "r_drop", "neftune", "ema", "swa", "evaluations_per_epoch", "patience"),
    "stop_after_steps",
)
"""The fields that only a method with training steps reads; those that depend on another field are left out."""


if TYPE_CHECKING:
    MethodSettings = Section
else:
    MethodSettings = methods.all_settings()


class TrainParams(MethodSettings):
    """The concrete settings of one training: those below, and those of each method (`Params` in components/model/methods)."""

    base: str = Field("model", description="the base model to start from: `model` (base.model) or a name in base.others")
    method: str = Field("full", description="decides which weights learn: a file of components/model/methods")
    head_start: Literal["random", "probe"] = Field(
        "random",
        description="start of the output layer: random (rows of labels that the base knows are copied), or the solution of a linear probe",
    )
    epochs: float = Field(3, gt=0, le=10_000, description="passes over the training rows")
    contrastive_start: float = Field(
        0.0,
        ge=0,
        le=10_000,
        description="extra epochs at the start in which the encoder learns to group texts with the same label; 0: none",
    )
    learning_rate: float = Field(2e-4, gt=0, le=1, description="peak, after warm-up")
    layer_decay: float = Field(1.0, gt=0, le=1, description="learning rate of a layer relative to the layer above; 1: all equal")
    batch_size: int = Field(32, ge=1, le=65_536, description="examples per forward pass")
    accumulation: int = Field(1, ge=1, le=65_536, description="forward passes per step; a step uses batch_size times accumulation examples")
    optimizer: Literal["adamw", "adam", "sgd", "adafactor"] = Field("adamw", description="optimizer")
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd: fraction of the last step that is repeated")
    nesterov: bool = Field(False, description="sgd: Nesterov momentum")
    schedule: Literal["linear", "cosine", "constant", "polynomial", "plateau"] = Field(
        "linear", description="decay of the learning rate after warm-up"
    )
    schedule_power: float = Field(2.0, gt=0, le=100, description="polynomial: exponent of the remaining fraction of the steps")
    plateau_factor: float = Field(0.5, gt=0, lt=1, description="plateau: the learning rate is multiplied by this")
    plateau_patience: int = Field(1, ge=0, le=10_000, description="plateau: evaluations without improvement before the rate falls")
    warmup: float = Field(
        0.1, ge=0, le=1e9, description="warm-up of the learning rate: below 1 a fraction of the steps, from 1 a number of steps"
    )
    weight_decay: float = Field(0.01, ge=0, le=10, description="decoupled for adamw and adafactor, added to the gradient for adam and sgd")
    max_grad_norm: float = Field(1.0, gt=0, le=1e6, description="gradients are clipped to this norm")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="fraction of the target that is spread over all labels")
    dropout: float | None = Field(None, ge=0, lt=1, description="in all layers of the model; null: as in the base's config")
    l1: float = Field(0.0, ge=0, le=10, description="weight of the sum of absolute weights in the loss")
    l2_sp: float = Field(0.0, ge=0, le=1e3, description="weight of half the squared distance to the base's weights, without the head")
    r_drop: float = Field(0.0, ge=0, le=1e3, description="weight of the divergence between two forward passes with different dropout")
    neftune: float = Field(0.0, ge=0, le=1e3, description="noise on the embeddings: uniform, this / sqrt(tokens x width) at most")
    ema: float = Field(0.0, ge=0, lt=1, description="decay of the moving average of the weights, which is evaluated and saved; 0: none")
    swa: float = Field(
        0.0, ge=0, lt=1, description="fraction of the steps, at the end, whose averaged weights are evaluated and saved; 0: none"
    )
    evaluations_per_epoch: int = Field(1, ge=1, le=1_000, description="evaluations on the validation split, each with a checkpoint")
    patience: int = Field(2, ge=0, le=10_000, description="evaluations without improvement before training stops; 0: never")
    stop_after_steps: int | None = Field(
        None, ge=1, description="training stops after so many steps; the learning rate falls as if it went on; null: after all epochs"
    )
    metric: str = Field("macro_f1", description="metric of the validation split; the checkpoint with the best value is kept")
    calibration: Literal["none", "temperature"] = Field(
        "none", description="temperature: fitted on the validation split after training; changes probabilities, never the predicted label"
    )
    class_biases: Literal["none", "fitted"] = Field(
        "none",
        description="fitted: after training, shift the output layer's bias towards rare classes if that raises macro-F1 on the validation "
        "split, by cross-validation",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="number format of the computation; auto: bfloat16 if the hardware supports it"
    )
    threads: int = Field(0, ge=0, le=4_096, description="0: all physical cores; a different number gives different weights")
    max_minutes: float = Field(60, gt=0, description="wall-clock time over all restarts; training stops cleanly at the limit")
    seed: int = Field(7, ge=0, lt=2**32, description="seed of the weights of the head, the order of the rows and dropout")

    @field_validator("method")
    @classmethod
    def _exists(cls, name: str) -> str:
        if name not in methods.available():
            raise ValueError(plugins.unknown(methods.__name__, name, methods.available(), "method"))
        return name

    @field_validator("warmup")
    @classmethod
    def _whole_steps(cls, warmup: float) -> float:
        if warmup >= 1 and warmup != int(warmup):
            raise ValueError("a number of steps (1 and above) must be whole; a share of the steps is below 1")
        return warmup

    @property
    def starts_at_probe(self) -> bool:
        """Whether the output layer starts as the solution of a linear probe."""
        return self.head_start == "probe" or not methods.trains(self.method)

    @property
    def stores_adapter(self) -> bool:
        """Whether a version stores the adapter instead of the merged model."""
        own = self.method_settings()
        return isinstance(own, lora.Params) and own.lora_store == "adapter"

    def method_settings(self) -> Section:
        """Return the settings of the method, as `Method.prepare` takes them."""
        return methods.settings_of(self.method, dict(self))


def split(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Separate the fields set to `tuned` from the fixed ones; unknown names stay with the fixed ones, whose parser refuses them."""
    raw = current_names(TrainParams, raw, "train")
    tuned = tuple(sorted(name for name, value in raw.items() if value == TUNED and name in TrainParams.model_fields))
    return {"fixed": {name: value for name, value in raw.items() if name not in tuned}, "tuned": tuned}


class TrainSection(Section):
    """The section `train` as written: fixed values, and the names of the fields set to `tuned`.

    A search must choose the fields set to `tuned`, and may choose fields that are not written; a written value is never replaced.
    """

    fixed: TrainParams
    tuned: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _from_plain(cls, raw: Any) -> Any:
        return split(raw) if isinstance(raw, Mapping) and not isinstance(raw.get("fixed"), TrainParams) else raw

    @classmethod
    def parse(cls, raw: object, where: str) -> Self:
        """Parse the plain value at `where` in params.yaml; messages use the names written there.

        Raises:
            BadParams: with all errors of the section in one message, including settings that exclude each other.
        """
        parts = split(raw) if isinstance(raw, Mapping) else {"fixed": raw, "tuned": ()}
        fixed = TrainParams.parse(parts["fixed"], where)
        section = cls(fixed=fixed, tuned=parts["tuned"])
        if faults := _conflicts(fixed.model_dump(), section.tuned):
            raise BadParams("\n".join(f"params.yaml: {where}.{fault}" for fault in faults))
        return section

    def settings(self, chosen: Mapping[str, Value]) -> TrainParams:
        """Return the concrete settings: the written values, for other fields the `chosen` ones, and else the defaults.

        Raises:
            BadParams: a field is set to `tuned` and has no chosen value, or a chosen value is invalid.
        """
        if missing := [name for name in self.tuned if name not in chosen]:
            raise BadParams(
                f"params.yaml: train.{missing[0]} is set to `tuned`, but the search chose no value for it; run `dvc repro tune`"
            )
        written = self.fixed.model_fields_set
        return TrainParams.parse(self.fixed.model_dump() | {name: chosen[name] for name in chosen if name not in written}, "train")


def _conflicts(settings: Mapping[str, Any], tuned: Collection[str]) -> list[str]:
    """Return the settings that exclude each other or that nothing would read, each as `field: reason`.

    A field at its default is never a conflict, and neither is one that depends on a `tuned` field.
    """
    fields = TrainParams.model_fields
    changed = [name for name, value in settings.items() if value != fields[name].default and name not in tuned]
    return _unread(settings, changed, tuned) + _pairs(settings, changed, tuned)


def _unread(settings: Mapping[str, Any], changed: Collection[str], tuned: Collection[str]) -> list[str]:
    faults = []
    for name, (switch, values) in (_USED_IF | _method_fields()).items():
        if name in changed and switch not in tuned and settings[switch] not in values:
            expected = " or ".join(values)
            faults.append(f"{name}: is used only if {switch} is {expected}, found {settings[name]!r} with {switch} {settings[switch]}")
    return faults


def _method_fields() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the fields that depend on the method: its own, those that need training steps, and those that need a base that learns."""
    loaded = {name: methods.load(name) for name in methods.available()}
    in_place = tuple(name for name, method in loaded.items() if method.IN_PLACE)
    own = {field: ("method", (name,)) for name, method in loaded.items() for field in method.Params.model_fields}
    training = tuple(name for name in loaded if methods.trains(name))
    of_training = {field: ("method", training) for field in _OF_TRAINING if field not in _USED_IF}
    return of_training | {"layer_decay": ("method", in_place), "l2_sp": ("method", in_place)} | own


def _pairs(settings: Mapping[str, Any], changed: Collection[str], tuned: Collection[str]) -> list[str]:
    faults = []
    if "nesterov" in changed and settings["momentum"] == 0 and "momentum" not in tuned:
        faults.append("nesterov: needs momentum above 0, found momentum 0")
    if "r_drop" in changed and settings["dropout"] == 0 and "dropout" not in tuned:
        faults.append("r_drop: compares two passes that differ by dropout, found dropout 0")
    if {"swa", "ema"} <= {*changed} and not {"swa", "ema"} & set(tuned):
        faults.append("swa: only one average of the weights is possible, and ema is set too; remove one of them")
    epochs = settings["epochs"] + settings["contrastive_start"]
    if "unfreeze_every" in changed and epochs <= settings["unfreeze_every"] and not {*_LENGTH, "unfreeze_every"} & set(tuned):
        faults.append(f"unfreeze_every: no layer is unfrozen within {epochs:g} epochs, found {settings['unfreeze_every']:g}")
    if {"swa", "contrastive_start"} <= {*changed} and settings["swa"] * epochs > settings["epochs"] and not {*_LENGTH} & set(tuned):
        faults.append(f"swa: would also average steps of contrastive_start, found {settings['swa']:g} of {epochs:g} epochs")
    if {"head_start", "contrastive_start"} <= {*changed}:
        faults.append("head_start: contrastive_start changes the features that the probe is fitted on; remove one of them")
    if "contrastive_start" in changed and settings["batch_size"] == 1 and "batch_size" not in tuned:
        faults.append("contrastive_start: compares the rows of a batch, found batch_size 1")
    freezing = {"method", "frozen_layers", "unfreeze_every"} & set(tuned)
    all_frozen = settings["frozen_layers"] == -1 and not freezing
    if {"unfreeze_every", "contrastive_start"} <= {*changed} and all_frozen:
        faults.append("contrastive_start: has no effect before unfreeze_every lets the first layer learn; set frozen_layers")
    if settings["method"] == "freeze" and all_frozen and not settings["unfreeze_every"]:
        idle = [name for name in ("l2_sp", "layer_decay", "contrastive_start") if name in changed]
        faults += [f"{name}: has no effect if frozen_layers is -1" for name in idle]
    return faults


def check_metric(where: str, metric: str, measured: Sequence[str]) -> None:
    """Check that `metric`, set at `where` in params.yaml, is one of the validation metrics `measured` by the task.

    Raises:
        BadParams: it is not.
    """
    if metric not in measured:
        raise BadParams(f"params.yaml: {where} {metric!r} is not measured by the task{nearest(metric, list(measured))}")


def check_fields(settings: TrainParams, refused: Mapping[str, str]) -> None:
    """Check that no field is set that the task refuses.

    Raises:
        BadParams: with all such fields and the task's reasons.
    """
    fields = TrainParams.model_fields
    faults = [(f"{name} is set", name) for name in refused if name in fields and getattr(settings, name) != fields[name].default]
    if "head_start" in refused and not methods.trains(settings.method):
        faults.append((f"method is {settings.method}", "head_start"))
    if faults:
        raise BadParams("\n".join(f"params.yaml: train.{fault}, and the task refuses it: {refused[name]}" for fault, name in faults))
