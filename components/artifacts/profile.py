"""`data/prepared/profile.json`: the rows that preprocessing kept, removed and cut."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from components.artifacts.base import Artifact


class SplitProfile(BaseModel):
    """Rows, groups and rows per label of one split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: int
    groups: int
    labels: dict[str, int]


class TokenLengths(BaseModel):
    """Lengths in tokens before truncation, over all kept rows; `cut_share` is the share of truncated rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_length: int
    mean: float
    quantiles: dict[str, int]
    histogram: tuple[tuple[int, int], ...]
    cut_rows: int
    cut_share: float
    cut_token_share: float


class Profile(Artifact):
    """Row counts of `snapshot` (its digest): rows_in = kept (all splits) + duplicates + conflicting + `pseudo_removed`.

    `augmented` counts noisy copies of training rows, which no other number includes. `split_by` is the column that determines the
    splits, `group`, `text` or `id`; None in profiles of earlier releases. `pseudo` counts pseudo-labelled training rows by the version
    that labelled them, `pseudo_removed` the removed ones by reason.
    """

    FILE: ClassVar[str] = "profile.json"

    snapshot: str
    rows_in: int
    kept: int
    exact_duplicates: int
    near_duplicates: int
    conflicting: int
    split_by: str | None = None
    pseudo: dict[str, int] = Field(default_factory=dict)
    augmented: int = 0
    pseudo_removed: dict[str, int] = Field(default_factory=dict)
    labels: tuple[str, ...]
    splits: dict[str, SplitProfile]
    tokens: TokenLengths
    test_digest: str
    learn_digest: str
    warnings: tuple[str, ...]
