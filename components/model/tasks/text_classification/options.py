"""The section `task_options` of text classification."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from components.core.section import Section
from components.core.text import canonical_label

KINDS = ("single", "multi", "ordinal", "regression")

_USED_BY = {
    "labels": ("multi",),
    "separator": ("multi",),
    "thresholds": ("multi",),
    "levels": ("ordinal",),
    "centre": ("regression",),
    "spread": ("regression",),
    "class_weights": ("single", "multi", "ordinal"),
}


class Options(Section):
    """The label type, input columns and head; a field that the `kind` does not use is an error."""

    kind: Literal["single", "multi", "ordinal", "regression"] = Field(
        "single", description="label type: one of k labels, any number of k labels, one of k ordered levels, or a number"
    )
    pair: bool = Field(False, description="read two texts per row, from the columns text_a and text_b, instead of text")
    labels: tuple[str, ...] = Field(
        (), description="multi: the allowed labels; macro-F1 is then a test metric; empty: all labels in the data"
    )
    separator: str = Field(";", min_length=1, description="multi: separator of labels in a cell that is not a JSON list")
    thresholds: dict[str, float] = Field(
        {}, description="multi: minimum probability per label; missing ones are fitted on the validation split after training"
    )
    levels: tuple[str, ...] = Field((), description="ordinal: levels from lowest to highest; empty: the labels are numbers")
    centre: float | None = Field(
        None, description="regression: the target is (label - centre) / spread; null: the mean of the training labels"
    )
    spread: float | None = Field(None, gt=0, description="regression: see centre; null: the standard deviation of the training labels")
    class_weights: Literal["none", "balanced"] | dict[str, float] = Field(
        "none", description="class weights in the loss: none; balanced (inverse to the frequency in the training rows); or label: weight"
    )
    pooling: Literal["default", "cls", "mean", "max"] = Field(
        "default", description="pooling of the token vectors before the head; default: that of the architecture"
    )
    head_hidden: int = Field(0, ge=0, le=65_536, description="width of a hidden layer in the head; 0: the head of the architecture")
    head_dropout: float | None = Field(None, ge=0, lt=1, description="dropout of the head; null: that of the architecture")

    @field_validator("labels", "levels")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(map(canonical_label, names))
        if len(names) == 1 or len(set(names)) < len(names) or not all(name.strip() for name in names):
            raise ValueError("expected no names, or at least two different non-empty names")
        return names

    @field_validator("thresholds")
    @classmethod
    def _are_probabilities(cls, thresholds: dict[str, float]) -> dict[str, float]:
        if invalid := [name for name, value in thresholds.items() if not 0 < value <= 1]:
            raise ValueError(f"expected probabilities above 0 and up to 1 for {', '.join(map(repr, invalid))}")
        return {canonical_label(name): value for name, value in thresholds.items()}

    @field_validator("class_weights")
    @classmethod
    def _are_weights(cls, weights: Any) -> Any:
        if isinstance(weights, dict) and (invalid := [name for name, value in weights.items() if value <= 0]):
            raise ValueError(f"expected weights above 0 for {', '.join(map(repr, invalid))}")
        return {canonical_label(name): value for name, value in weights.items()} if isinstance(weights, dict) else weights

    @model_validator(mode="after")
    def _are_used(self) -> Self:
        for name, kinds in _USED_BY.items():
            if self.kind not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is used only with kind {' or '.join(kinds)}, not {self.kind}")
        return self

    @property
    def own_head(self) -> bool:
        """Whether the custom head replaces the head of the architecture."""
        return (self.pooling, self.head_hidden, self.head_dropout) != ("default", 0, None)
