"""The section `preprocess`."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from components.core.errors import BadParams
from components.core.section import Section
from components.core.text import UnicodeForm


class PreprocessParams(Section):
    """How rows are cleaned, split and truncated."""

    unicode_form: UnicodeForm = Field("NFC", description="NFC keeps compatibility characters, NFKC folds them")
    test_share: float = Field(0.2, gt=0, lt=1, description="share of the groups in the test set")
    validation_share: float = Field(0.1, gt=0, lt=1, description="share of the groups in the validation split")
    split_seed: int = Field(20261121, ge=0, lt=2**63, description="changing it moves rows: champions have then seen test rows")
    split_by: Literal["text", "id"] = Field(
        "text", description="decides the split of a row without a group; id: as before 0.1.0, a text with a new id may move"
    )
    near_duplicate: float = Field(0.8, gt=0.3, le=1, description="Jaccard similarity of word shingles; 1: exact duplicates only")
    max_length: int = Field(64, ge=4, le=1_000_000, description="tokens, including special tokens; longer texts are truncated")
    warn_cut_share: float = Field(0.05, ge=0, le=1, description="warn if more than this share of the rows is truncated")

    augment_copies: int = Field(0, ge=0, le=100, description="noisy copies of each training row, added to training; 0: none")
    augment_noise: float = Field(0.05, gt=0, le=0.3, description="share of a copy's characters that are changed")
    augment_seed: int = Field(7, ge=0, lt=2**63, description="seed of the noise in the copies")

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        fields = type(self).model_fields
        for name in ("augment_noise", "augment_seed"):
            if not self.augment_copies and getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} needs augment_copies above 0, found {getattr(self, name)} with augment_copies 0")
        if (total := self.test_share + self.validation_share) >= 1:
            raise ValueError(f"test_share and validation_share must sum to less than 1, found {total:g}")
        return self


def check_copies(settings: PreprocessParams, refused: Mapping[str, str]) -> None:
    """Check that a task supports noisy copies; `refused` maps the fields that it refuses to reasons.

    Raises:
        BadParams: the task refuses copies; contains its reason.
    """
    if settings.augment_copies and "augment_copies" in refused:
        raise BadParams(f"params.yaml: preprocess.augment_copies is set, but the task refuses it: {refused['augment_copies']}")
