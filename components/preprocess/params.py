"""The section `preprocess`."""

from typing import Self

from pydantic import Field, model_validator

from components.params import Section
from components.text import UnicodeForm


class PreprocessParams(Section):
    """How rows are cleaned, split and cut."""

    unicode_form: UnicodeForm = Field("NFC", description="NFC keeps compatibility characters, NFKC folds them")
    test_share: float = Field(0.2, gt=0, lt=1, description="of the groups")
    validation_share: float = Field(0.1, gt=0, lt=1, description="of the groups")
    split_seed: int = Field(20261121, ge=0, lt=2**63, description="another one moves rows: champions have then seen test rows")
    near_duplicate: float = Field(0.8, gt=0.3, le=1, description="Jaccard similarity of word shingles; 1: exact duplicates only")
    max_length: int = Field(64, ge=4, le=1_000_000, description="tokens, special ones included; longer texts are cut")
    warn_cut_share: float = Field(0.05, ge=0, le=1, description="warn when truncation shortens more than this share of the rows")

    @model_validator(mode="after")
    def _leave_rows_to_train_on(self) -> Self:
        if self.test_share + self.validation_share >= 1:
            total = self.test_share + self.validation_share
            raise ValueError(f"test_share and validation_share must leave rows to train on; their sum is {total:g}, expected below 1")
        return self
