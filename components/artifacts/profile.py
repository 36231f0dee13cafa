"""`data/prepared/profile.json`: the rows that preprocessing kept, removed and cut."""

from pydantic import Field

from components.artifacts.base import Artifact, Record


class SplitProfile(Record):
    """Rows, groups and rows per label of one split."""

    rows: int
    groups: int
    labels: dict[str, int]


class TokenLengths(Record):
    """Lengths in tokens before truncation, over all kept rows; `cut_share` is the share of truncated rows."""

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

    FILE = "profile.json"

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
