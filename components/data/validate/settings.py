"""The section `validate` of params.yaml."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from components.core.errors import BadParams
from components.core.section import Section
from components.core.text import canonical_label


class ValidateParams(Section):
    """What good data is."""

    min_rows: int = Field(default=100, ge=2, description="rows that must be left after quarantine")
    min_rows_per_class: int = Field(default=20, ge=1, description="rows of every label that must be left after quarantine")
    min_characters: int = Field(default=2, ge=1, description="of a text; a row with fewer goes to quarantine")
    max_characters: int = Field(default=20_000, ge=1, description="of a text; a row with more goes to quarantine")
    max_duplicate_share: float = Field(default=0.5, ge=0, le=1, description="share of the rows whose text another row has already")
    labels: tuple[str, ...] = Field(default=(), description="the allowed labels; empty: every label seen is allowed")
    label_map: dict[str, str] = Field(
        default_factory=dict, description="variant: label, of labels that mean the same, as {netz: Netz}; tags and entity types too"
    )
    numeric_labels: Literal["refuse", "allow"] = Field(default="refuse", description="whether numbers may be class names")
    max_quarantined_share: float = Field(default=0.1, ge=0, le=1, description="share of bad rows above which the snapshot is rejected")

    @field_validator("labels")
    @classmethod
    def _as_they_are_read(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(canonical_label, labels))

    @field_validator("label_map")
    @classmethod
    def _is_a_map(cls, label_map: dict[str, str]) -> dict[str, str]:
        known = {canonical_label(variant): canonical_label(label) for variant, label in label_map.items()}
        if not all(known) or not all(known.values()):
            raise ValueError("an empty text is no label")
        if len(known) < len(label_map):
            raise ValueError("two of its variants are one label, in two spellings that look the same")
        if chained := [variant for variant, label in known.items() if label in known]:
            raise ValueError(
                f"{chained[0]!r} becomes {known[chained[0]]!r}, which becomes another label itself; name the last one for both"
            )
        return known

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        if self.min_characters > self.max_characters:
            raise ValueError(f"min_characters {self.min_characters} is more than max_characters {self.max_characters}: no text could pass")
        if len(self.labels) == 1:
            raise ValueError(f"labels: expected none or at least two, found only {self.labels[0]!r}")
        if twice := sorted({label for label in self.labels if self.labels.count(label) > 1}):
            raise ValueError(f"labels: {', '.join(map(repr, twice))} stands there more than once")
        if self.labels and (strange := sorted(set(self.label_map.values()) - set(self.labels))):
            raise ValueError(f"label_map: {strange[0]!r} is not one of validate.labels")
        if not all(label.strip() for label in self.labels):
            raise ValueError("labels: an empty text is no label")
        return self


def check_label_map(settings: ValidateParams, named: str | None) -> None:
    """Check that there are labels where a map merges some; `named` is the task's column of them.

    Raises:
        BadParams: the task has none.
    """
    if settings.label_map and named is None:
        raise BadParams("params.yaml: validate.label_map is set, and the answers of this task are no labels; leave it out")
