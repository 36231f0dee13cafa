"""Which rows must go: conflicting labels, exact copies, and near copies of a row in a split that must stay unseen.

Every function takes rows with id, text, label and split, ordered by id, and returns the rows to remove as a table of
id, reason, duplicate_of; the answer does not depend on the order of the rows.
"""

from collections.abc import Sequence

import pandas as pd

from components.core.similarity import closest
from components.data.preprocess.splits import SPLITS

CONFLICTING = "conflicting labels"
EXACT = "exact duplicate"
NEAR = "near duplicate"


def conflicting(rows: pd.DataFrame) -> pd.DataFrame:
    """Return all copies of a text that carries more than one label; `duplicate_of` is the first row with another label."""
    shared = rows[rows.groupby("text", sort=False)["label"].transform("nunique") > 1]
    other: dict[str, str] = {}
    for _, copies in shared.groupby("text", sort=False):
        first = copies.drop_duplicates("label")
        for row in copies.itertuples():
            other[str(row.id)] = str(first.loc[first["label"] != row.label, "id"].iloc[0])
    return as_removed(shared["id"].tolist(), CONFLICTING, [other[name] for name in shared["id"]])


def exact(rows: pd.DataFrame, same: Sequence[str] = ("text",)) -> pd.DataFrame:
    """Return all copies of a text but one: that of the most favoured split, and of those the first by id.

    Copies are rows that agree in the columns `same`.
    """
    ranked = rows.assign(rank=rows["split"].map({split: rank for rank, split in enumerate(SPLITS)})).sort_values(["rank", "id"])
    kept = ranked.groupby(list(same), sort=False)["id"].transform("first")
    copies = ranked[ranked["id"] != kept]
    return as_removed(copies["id"].tolist(), EXACT, kept[copies.index].tolist()).sort_values("id", ignore_index=True)


def crossing(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose text stands in a more favoured split, whatever its label there."""
    ranked = rows.assign(rank=rows["split"].map({split: rank for rank, split in enumerate(SPLITS)})).sort_values(["rank", "id"])
    first = ranked.groupby("text", sort=False)[["id", "rank"]].transform("first")
    late = ranked[ranked["rank"] > first["rank"]]
    return as_removed(late["id"].tolist(), EXACT, first["id"][late.index].tolist()).sort_values("id", ignore_index=True)


def near(rows: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return the rows that resemble a kept row of a more favoured split: Jaccard similarity of shingles of `threshold` or more.

    Near copies within one split stay.
    """
    if threshold >= 1 or rows.empty:
        return as_removed([], NEAR, [])
    texts, kept, gone = rows["text"].tolist(), list[int](), dict[int, int]()
    for split in SPLITS:
        places = [place for place, own in enumerate(rows["split"]) if own == split]
        twins = closest([texts[place] for place in places], [texts[place] for place in kept], threshold)
        gone |= {places[place]: kept[twin] for place, (twin, _) in twins.items()}
        kept = sorted([*kept, *(place for place in places if place not in gone)])
    ids, order = rows["id"].tolist(), sorted(gone)
    return as_removed([ids[place] for place in order], NEAR, [ids[gone[place]] for place in order])


def as_removed(ids: list[str], reason: str, duplicate_of: Sequence[str | None]) -> pd.DataFrame:
    """Return the rows `ids` as a table of id, reason, duplicate_of."""
    return pd.DataFrame({"id": ids, "reason": [reason] * len(ids), "duplicate_of": duplicate_of}, dtype=str)
