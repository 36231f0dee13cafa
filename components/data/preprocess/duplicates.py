"""Find rows to remove: conflicting labels, exact copies, and near copies across splits.

Every function takes rows with id, text, label and split, ordered by id, and returns the rows to remove as a table of
id, reason, duplicate_of; the result does not depend on the order of the rows.
"""

from collections.abc import Sequence

import pandas as pd

from components.core.similarity import closest
from components.data.preprocess.splits import SPLITS

CONFLICTING = "conflicting labels"
EXACT = "exact duplicate"
NEAR = "near duplicate"


def conflicting(rows: pd.DataFrame) -> pd.DataFrame:
    """Return all copies of a text with more than one label; `duplicate_of` is the first row with another label."""
    shared = rows[rows.groupby("text", sort=False)["label"].transform("nunique") > 1]
    duplicate_of: dict[str, str] = {}
    for _, copies in shared.groupby("text", sort=False):
        first = copies.drop_duplicates("label")
        for row in copies.itertuples():
            duplicate_of[str(row.id)] = str(first.loc[first["label"] != row.label, "id"].iloc[0])
    return as_removed(shared["id"].tolist(), CONFLICTING, [duplicate_of[name] for name in shared["id"]])


def exact(rows: pd.DataFrame, same: Sequence[str] = ("text",)) -> pd.DataFrame:
    """Return all copies of a text except one: that in the first split of SPLITS, then the first by id.

    Copies are rows that agree in the columns `same`.
    """
    ranked = _ranked(rows)
    kept = ranked.groupby(list(same), sort=False)["id"].transform("first")
    copies = ranked[ranked["id"] != kept]
    return as_removed(copies["id"].tolist(), EXACT, kept[copies.index].tolist())


def crossing(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose text is also in an earlier split of SPLITS, with any label."""
    ranked = _ranked(rows)
    first = ranked.groupby("text", sort=False)[["id", "rank"]].transform("first")
    late = ranked[ranked["rank"] > first["rank"]]
    return as_removed(late["id"].tolist(), EXACT, first["id"][late.index].tolist())


def near(rows: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return the rows that resemble a kept row of an earlier split of SPLITS: Jaccard similarity of shingles of at least `threshold`.

    Near copies within one split stay.
    """
    if threshold >= 1 or rows.empty:
        return as_removed([], NEAR, [])
    texts, kept, twins = rows["text"].tolist(), list[int](), dict[int, int]()
    for split in SPLITS:
        indexes = [index for index, row_split in enumerate(rows["split"]) if row_split == split]
        matches = closest([texts[index] for index in indexes], [texts[index] for index in kept], threshold)
        twins |= {indexes[position]: kept[twin] for position, (twin, _) in matches.items()}
        kept = sorted([*kept, *(index for index in indexes if index not in twins)])
    ids, removed = rows["id"].tolist(), sorted(twins)
    return as_removed([ids[index] for index in removed], NEAR, [ids[twins[index]] for index in removed])


def _ranked(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(rank=rows["split"].map({split: rank for rank, split in enumerate(SPLITS)})).sort_values(["rank", "id"])


def as_removed(ids: list[str], reason: str, duplicate_of: Sequence[str | None]) -> pd.DataFrame:
    """Return the rows `ids` as a table of id, reason, duplicate_of, ordered by id."""
    rows = pd.DataFrame({"id": ids, "reason": [reason] * len(ids), "duplicate_of": duplicate_of}, dtype=str)
    return rows.sort_values("id", ignore_index=True)
