"""Parts of the test set: the values of a column, and the built-in cuts by length, label, rare words and source."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.core.similarity import words
from components.gates.support.evidence import Evidence
from components.stats import MIN_GROUPS, Units

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

MOST_VALUES = 50
MISSING = "(none)"
RARE = 3
"""A word is rare that occurs less often than this in the training texts."""


@dataclass(frozen=True)
class Slice:
    """The test rows (rows,) that have one `value` of a `kind`."""

    kind: str
    value: str
    rows: Bools

    @property
    def name(self) -> str:
        """What tables and reasons call it."""
        return f"{self.kind}={self.value}"


def test_rows(evidence: Evidence) -> pd.DataFrame | str:
    """Return the test rows, or why they cannot be used."""
    rows = evidence.rows
    if rows is None:
        return "the test rows were not handed over, only what was predicted for them"
    if len(rows) != len(evidence.candidate.ids) or rows["id"].tolist() != evidence.candidate.ids.tolist():
        return "the test rows are not those of the predictions, or in another order"
    return rows


def by_column(rows: pd.DataFrame, column: str, kind: str | None = None) -> tuple[list[Slice], str | None]:
    """Return a cut for each value of `column`, the most frequent first, and a note where there are too many of them."""
    values = np.array([MISSING if pd.isna(value) else str(value) for value in rows[column]], dtype=np.str_)
    names, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    cuts = [Slice(kind or column, str(name), values == name) for name in names[order[:MOST_VALUES]]]
    rest = int(counts[order[MOST_VALUES:]].sum())
    note = f"{column} has {len(names)} values: the {MOST_VALUES} most frequent are compared, {rest:,} rows have another" if rest else None
    return cuts, note


def by_values(values: Sequence[str], kind: str) -> tuple[list[Slice], str | None]:
    """Return a cut for each value of a row's part of a `kind`, as `by_column` does; a row with "" is in none."""
    cuts, note = by_column(pd.DataFrame({kind: list(values)}), kind)
    return [cut for cut in cuts if cut.value], note


def by_length(rows: pd.DataFrame) -> list[Slice]:
    """Return the thirds of the rows by the characters of their text; equal lengths stay together."""
    return _thirds("length", np.array([len(text) for text in rows["text"]], dtype=np.float64), "characters", ("short", "middle", "long"))


def by_rare_words(rows: pd.DataFrame, train: pd.DataFrame) -> list[Slice]:
    """Return the thirds of the rows by the share of their words that the training texts hold fewer than `RARE` times."""
    seen = Counter(chain.from_iterable(words(text) for text in train["text"]))
    shares = [_share([seen[word] < RARE for word in words(text)]) for text in rows["text"]]
    return _thirds("rare words", np.array(shares, dtype=np.float64) * 100, "% of the words", ("few", "some", "many"))


def grouped(evidence: Evidence) -> bool:
    """Whether the test set has groups of several rows: then groups are counted, not rows."""
    return evidence.units.grouped


def enough(units: Units, by_groups: bool, min_rows: int) -> bool:
    """Whether a part of the test set may decide: `MIN_GROUPS` groups where there are groups, else `min_rows` rows."""
    return units.count >= MIN_GROUPS if by_groups else units.rows >= min_rows


def needed(by_groups: bool, min_rows: int, gate: str) -> str:
    """Write what a part needs in order to decide; the gate's `min_rows` is asked where there are no groups."""
    return f"{MIN_GROUPS} groups" if by_groups else f"{min_rows} rows (gates.{gate}.min_rows)"


def _share(rare: list[bool]) -> float:
    return sum(rare) / len(rare) if rare else 1.0


def _thirds(kind: str, values: Floats, unit: str, names: tuple[str, str, str]) -> list[Slice]:
    """Return up to three cuts at the terciles; those that no row falls into are left out."""
    first, second = (float(end) for end in np.quantile(values, [1 / 3, 2 / 3], method="inverted_cdf"))
    parts = [values <= first, (values > first) & (values <= second), values > second]
    ends = [f"up to {first:.0f} {unit}", f"up to {second:.0f} {unit}", f"above {second:.0f} {unit}"]
    named = zip(names, ends, parts, strict=True)
    return [Slice(kind, f"{name} ({end})", part) for name, end, part in named if part.any()]
