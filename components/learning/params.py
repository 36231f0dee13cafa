"""The section `train`: how a model learns. `tune` and `train` both read it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from components.errors import BadParams
from components.params import Section, nearest

TUNED = "tuned"
Value = float | int | str | bool


class TrainParams(Section):
    """The settings of one training, all concrete."""

    epochs: float = Field(3, gt=0, le=10_000, description="passes over the training rows")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="peak, after warm-up")
    batch_size: int = Field(32, ge=1, le=65_536, description="examples a forward pass")
    accumulation: int = Field(1, ge=1, le=65_536, description="forward passes a step; a step sees batch_size times accumulation examples")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="how the learning rate falls after warm-up")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps over which the learning rate rises")
    weight_decay: float = Field(0.01, ge=0, le=10, description="AdamW's decoupled weight decay")
    max_grad_norm: float = Field(1.0, gt=0, le=1e6, description="gradients are scaled down to this norm")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all labels")
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


def split(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Part the fields that say `tuned` from the others; unknown names stay with the others, which refuse them."""
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
            BadParams: with every fault of the section in one message.
        """
        parts = split(raw) if isinstance(raw, Mapping) else {"fixed": raw, "tuned": ()}
        return cls(fixed=TrainParams.parse(parts["fixed"], where), tuned=parts["tuned"])

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
