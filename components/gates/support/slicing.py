"""Slices of the test set: the values of a column, and built-in slices by length and rare words."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd

from components.artifacts.metrics import MIN_GROUPS
from components.core.similarity import words
from components.gates.support.evidence import Evidence
from components.stats.units import Bools, Floats, Units

MOST_VALUES = 50
MISSING = "(none)"
RARE = 3
"""A word is rare if it occurs fewer times than this in the training texts."""


@dataclass(frozen=True)
class Slice:
    """Test rows (rows,) with one `value` of a `dimension`, such as a column or the text length."""

    dimension: str
    value: str
    rows: Bools

    @property
    def name(self) -> str:
        """Name in tables and reasons."""
        return f"{self.dimension}={self.value}"


def test_rows(evidence: Evidence) -> pd.DataFrame | str:
    """Return the test rows, or the reason why they cannot be used."""
    rows = evidence.rows
    if rows is None:
        return "the evidence contains predictions but no test rows"
    if len(rows) != len(evidence.candidate.ids) or rows["id"].tolist() != evidence.candidate.ids.tolist():
        return "the test rows and the predictions have different ids, or another order"
    return rows


def by_column(rows: pd.DataFrame, column: str, dimension: str | None = None) -> tuple[list[Slice], str | None]:
    """Return a slice per value of `column`, the most frequent first, and a note if there are too many values."""
    values = np.array([MISSING if pd.isna(value) else str(value) for value in rows[column]], dtype=np.str_)
    names, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    slices = [Slice(dimension or column, str(name), values == name) for name in names[order[:MOST_VALUES]]]
    rest = int(counts[order[MOST_VALUES:]].sum())
    note = f"{column} has {len(names)} values: the {MOST_VALUES} most frequent are compared, {rest:,} rows have another" if rest else None
    return slices, note


def by_values(values: Sequence[str], dimension: str) -> tuple[list[Slice], str | None]:
    """Return a slice per value (one value per row), as `by_column` does; rows with "" belong to no slice."""
    slices, note = by_column(pd.DataFrame({dimension: list(values)}), dimension)
    return [part for part in slices if part.value], note


def by_length(rows: pd.DataFrame) -> list[Slice]:
    """Return the thirds of the rows by text length in characters; equal lengths stay together."""
    return _thirds("length", np.array([len(text) for text in rows["text"]], dtype=np.float64), "characters", ("short", "middle", "long"))


def by_rare_words(rows: pd.DataFrame, train: pd.DataFrame) -> list[Slice]:
    """Return the thirds of the rows by the share of words that occur fewer than `RARE` times in the training texts."""
    counts = Counter(chain.from_iterable(words(text) for text in train["text"]))
    rare = [[counts[word] < RARE for word in words(text)] for text in rows["text"]]
    shares = [sum(part) / len(part) if part else 1.0 for part in rare]
    return _thirds("rare words", np.array(shares, dtype=np.float64) * 100, "% of the words", ("few", "some", "many"))


def is_large(units: Units, by_groups: bool, min_rows: int) -> bool:
    """Whether a slice is large enough to reject: `MIN_GROUPS` groups if the test set has groups, else `min_rows` rows."""
    return units.count >= MIN_GROUPS if by_groups else units.rows >= min_rows


def required_size(by_groups: bool, min_rows: int, gate: str) -> str:
    """Format the size that `is_large` requires."""
    return f"{MIN_GROUPS} groups" if by_groups else f"{min_rows} rows (gates.{gate}.min_rows)"


def _thirds(dimension: str, values: Floats, unit: str, names: tuple[str, str, str]) -> list[Slice]:
    """Return up to three slices at the terciles, without empty ones."""
    first, second = (float(end) for end in np.quantile(values, [1 / 3, 2 / 3], method="inverted_cdf"))
    parts = [values <= first, (values > first) & (values <= second), values > second]
    ends = [f"up to {first:.0f} {unit}", f"up to {second:.0f} {unit}", f"above {second:.0f} {unit}"]
    return [Slice(dimension, f"{name} ({end})", part) for name, end, part in zip(names, ends, parts, strict=True) if part.any()]
