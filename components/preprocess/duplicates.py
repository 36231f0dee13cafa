"""Which rows must go: conflicting labels, exact copies, and near copies of a row in a split that must stay unseen.

Every function takes rows with id, text, label and split, ordered by id, and returns the rows to remove as a table of
id, reason, duplicate_of; the answer does not depend on the order of the rows.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

import pandas as pd
from datasketch import MinHash, MinHashLSH

from components.preprocess.splits import SPLITS

CONFLICTING = "conflicting labels"
EXACT = "exact duplicate"
NEAR = "near duplicate"

_PERMUTATIONS = 128
# Candidates are verified, so a false one costs little and a missed one is a leak: recall at the threshold is then above 96 %.
_WEIGHTS = (0.02, 0.98)
_STEEPEST = 0.95  # LSH has too few bands above this; verification still asks for the threshold itself
# Thai, Lao, Burmese, Khmer, kana, Han: scripts that put no space between words.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_CHARACTER = re.compile(rf"[{_UNSPACED}]")


def conflicting(rows: pd.DataFrame) -> pd.DataFrame:
    """Return all copies of a text that carries more than one label; `duplicate_of` is the first row with another label."""
    shared = rows[rows.groupby("text", sort=False)["label"].transform("nunique") > 1]
    other: dict[str, str] = {}
    for _, copies in shared.groupby("text", sort=False):
        first = copies.drop_duplicates("label")
        for row in copies.itertuples():
            other[str(row.id)] = str(first.loc[first["label"] != row.label, "id"].iloc[0])
    return _removed(shared["id"].tolist(), CONFLICTING, [other[name] for name in shared["id"]])


def exact(rows: pd.DataFrame) -> pd.DataFrame:
    """Return all copies of a text but one: that of the most favoured split, and of those the first by id."""
    ranked = rows.assign(rank=rows["split"].map({split: rank for rank, split in enumerate(SPLITS)})).sort_values(["rank", "id"])
    kept = ranked.groupby("text", sort=False)["id"].transform("first")
    copies = ranked[ranked["id"] != kept]
    return _removed(copies["id"].tolist(), EXACT, kept[copies.index].tolist()).sort_values("id", ignore_index=True)


def near(rows: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return the rows that resemble a kept row of a more favoured split: Jaccard similarity of shingles of `threshold` or more.

    Candidates come from MinHash LSH (datasketch) and are verified exactly. Near copies within one split stay.
    """
    if threshold >= 1 or rows.empty:
        return _removed([], NEAR, [])
    shingled = [shingles(text) for text in rows["text"]]
    hashes = MinHash.bulk([[shingle.encode() for shingle in one] for one in shingled], num_perm=_PERMUTATIONS)
    index = MinHashLSH(threshold=min(threshold, _STEEPEST), num_perm=_PERMUTATIONS, weights=_WEIGHTS)
    places = {split: [place for place, own in enumerate(rows["split"]) if own == split] for split in SPLITS}
    gone: dict[int, int] = {}
    for split in SPLITS:
        for place in places[split]:
            if (twin := _closest(place, index.query(hashes[place]), shingled, threshold)) is not None:
                gone[place] = twin
        for place in places[split]:
            if place not in gone:
                index.insert(place, hashes[place])
    ids = rows["id"].tolist()
    order = sorted(gone)
    return _removed([ids[place] for place in order], NEAR, [ids[gone[place]] for place in order])


def shingles(text: str) -> frozenset[str]:
    """Return the words and pairs of adjacent words of `text`, without case and punctuation.

    Where most of a text is in a script without spaces, the shingles are runs of three characters instead.
    """
    tokens = _TOKEN.findall(text.casefold())
    if 2 * len(_CHARACTER.findall(text)) > len(tokens):
        runs = {"".join(tokens[place : place + 3]) for place in range(max(1, len(tokens) - 2))}
    else:
        runs = {*tokens, *(" ".join(pair) for pair in pairwise(tokens))}
    return frozenset(runs or {text})


def _closest(place: int, candidates: Sequence[int], shingled: list[frozenset[str]], threshold: float) -> int | None:
    """Return the verified candidate with the highest similarity, the first of equals, or None."""
    best, twin = threshold, None
    for candidate in sorted(candidates):
        similarity = _jaccard(shingled[place], shingled[candidate])
        if similarity > best or (twin is None and similarity >= best):
            best, twin = similarity, candidate
    return twin


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def _removed(ids: list[str], reason: str, duplicate_of: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"id": ids, "reason": [reason] * len(ids), "duplicate_of": duplicate_of}, dtype=str)
