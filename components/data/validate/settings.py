"""The section `validate` of params.yaml."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from components.core.errors import BadParams
from components.core.section import Section
from components.core.text import canonical_label


class ValidateParams(Section):
    """Requirements for the data."""

    min_rows: int = Field(default=100, ge=2, description="minimum rows after quarantine")
    min_rows_per_class: int = Field(default=20, ge=1, description="minimum rows of every label after quarantine")
    min_characters: int = Field(default=2, ge=1, description="minimum characters of a text; a row with fewer goes to quarantine")
    max_characters: int = Field(default=20_000, ge=1, description="maximum characters of a text; a row with more goes to quarantine")
    max_duplicate_share: float = Field(default=0.5, ge=0, le=1, description="maximum share of rows that repeat the text of another row")
    labels: tuple[str, ...] = Field(default=(), description="the allowed labels; empty: any label is allowed")
    label_map: dict[str, str] = Field(
        default_factory=dict, description="variant: label, to merge labels, e.g. {netz: Netz}; also for tags and entity types"
    )
    numeric_labels: Literal["refuse", "allow"] = Field(default="refuse", description="whether numbers may be class names")
    max_quarantined_share: float = Field(default=0.1, ge=0, le=1, description="share of bad rows above which the snapshot is rejected")

    @field_validator("labels")
    @classmethod
    def _canonical(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(canonical_label, labels))

    @field_validator("label_map")
    @classmethod
    def _check_map(cls, label_map: dict[str, str]) -> dict[str, str]:
        canonical = {canonical_label(variant): canonical_label(label) for variant, label in label_map.items()}
        if not all(canonical) or not all(canonical.values()):
            raise ValueError("a label cannot be an empty text")
        if len(canonical) < len(label_map):
            raise ValueError("two variants are the same label in spellings that look the same")
        if chained := [variant for variant, label in canonical.items() if label in canonical]:
            raise ValueError(f"{chained[0]!r} becomes {canonical[chained[0]]!r}, which is mapped again; map both to the final label")
        return canonical

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.min_characters > self.max_characters:
            raise ValueError(f"min_characters {self.min_characters} is more than max_characters {self.max_characters}: no text can pass")
        if len(self.labels) == 1:
            raise ValueError(f"labels: expected none or at least two, found only {self.labels[0]!r}")
        if repeated := sorted({label for label in self.labels if self.labels.count(label) > 1}):
            raise ValueError(f"labels: {', '.join(map(repr, repeated))} appears more than once")
        if self.labels and (unknown := sorted(set(self.label_map.values()) - set(self.labels))):
            raise ValueError(f"label_map: {unknown[0]!r} is not in validate.labels")
        if not all(label.strip() for label in self.labels):
            raise ValueError("labels: a label cannot be an empty text")
        return self


def check_label_map(settings: ValidateParams, named: str | None) -> None:
    """Check that a label map is set only for a task with labels; `named` is the task's label column.

    Raises:
        BadParams: the task has no labels.
    """
    if settings.label_map and named is None:
        raise BadParams("params.yaml: validate.label_map is set, but this task has no labels; remove it")
