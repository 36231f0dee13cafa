"""The section `task_options` of text classification."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from components.core.section import Section
from components.core.text import canonical_label

KINDS = ("single", "multi", "ordinal", "regression")

_READ_BY = {
    "labels": ("multi",),
    "separator": ("multi",),
    "thresholds": ("multi",),
    "levels": ("ordinal",),
    "centre": ("regression",),
    "spread": ("regression",),
    "class_weights": ("single", "multi", "ordinal"),
}


class Options(Section):
    """What is answered, from what, and by what head; a field that the `kind` does not read is an error."""

    kind: Literal["single", "multi", "ordinal", "regression"] = Field(
        "single", description="what a label is: one of k, any number of k, one of k levels in order, or a number"
    )
    pair: bool = Field(False, description="two texts a row, in the columns text_a and text_b, instead of one in text")
    labels: tuple[str, ...] = Field(
        (), description="multi: the allowed labels, over which macro-F1 is then measured; empty: every label seen"
    )
    separator: str = Field(";", min_length=1, description="multi: between labels, where the cell is not a JSON list")
    thresholds: dict[str, float] = Field(
        {},
        description="multi: probability from which a label is answered; of those not named, fitted on the validation split after training",
    )
    levels: tuple[str, ...] = Field((), description="ordinal: from the lowest to the highest; empty: the labels are numbers")
    centre: float | None = Field(
        None, description="regression: what is learnt is (label - centre) / spread; null: the mean of the training labels"
    )
    spread: float | None = Field(None, gt=0, description="regression: see centre; null: the standard deviation of the training labels")
    class_weights: Literal["none", "balanced"] | dict[str, float] = Field(
        "none", description="of the loss: none; balanced, inversely to how common a label is among the training rows; or label: weight"
    )
    pooling: Literal["default", "cls", "mean", "max"] = Field(
        "default", description="of the tokens' vectors, for the head; default: the architecture's own"
    )
    head_hidden: int = Field(0, ge=0, le=65_536, description="width of a hidden layer of the head; 0: none beyond the architecture's own")
    head_dropout: float | None = Field(
        None, ge=0, lt=1, description="share of the head's inputs that are dropped; null: the architecture's own"
    )

    @field_validator("labels", "levels")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(map(canonical_label, names))  # as those of the data are read
        if len(names) == 1 or len(set(names)) < len(names) or not all(name.strip() for name in names):
            raise ValueError("expected none, or two or more different names, none of them empty")
        return names

    @field_validator("thresholds")
    @classmethod
    def _are_probabilities(cls, thresholds: dict[str, float]) -> dict[str, float]:
        if wrong := [name for name, value in thresholds.items() if not 0 < value <= 1]:
            raise ValueError(f"expected probabilities above 0 and up to 1; {', '.join(map(repr, wrong))} has another")
        return {canonical_label(name): value for name, value in thresholds.items()}

    @field_validator("class_weights")
    @classmethod
    def _are_weights(cls, weights: Any) -> Any:
        if isinstance(weights, dict) and (wrong := [name for name, value in weights.items() if value <= 0]):
            raise ValueError(f"expected weights above 0; {', '.join(map(repr, wrong))} has another")
        return {canonical_label(name): value for name, value in weights.items()} if isinstance(weights, dict) else weights

    @model_validator(mode="after")
    def _are_read(self) -> Self:
        for name, kinds in _READ_BY.items():
            if self.kind not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is read where kind is {' or '.join(kinds)}, not {self.kind}")
        return self

    @property
    def own_head(self) -> bool:
        """Whether a head of ours stands in the place of the architecture's."""
        return (self.pooling, self.head_hidden, self.head_dropout) != ("default", 0, None)
