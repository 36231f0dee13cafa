"""Stable splits: a row's split follows from its group and the seed, never from its position or from the other rows."""

import hashlib
from collections.abc import Iterable

import pandas as pd

SPLITS = ("test", "validation", "train")
"""In the order in which a duplicate is kept."""


def fraction(seed: int, key: str) -> float:
    """Return a number in [0, 1) that is uniform over keys: the first 64 bits of a sha256."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8]) / 2**64


def split_of(seed: int, key: str, test_share: float, validation_share: float) -> str:
    """Return the split of the group `key`."""
    place = fraction(seed, key)
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation_share else "train"


def assign(groups: Iterable[str], seed: int, test_share: float, validation_share: float) -> list[str]:
    """Return the split of each group in `groups`."""
    keys = list(groups)
    known = {key: split_of(seed, key, test_share, validation_share) for key in set(keys)}
    return [known[key] for key in keys]


def identify(rows: pd.DataFrame) -> pd.DataFrame:
    """Return `rows` with an `id` and a `group` in every row, ordered by id.

    Without an id of its own, a row is named by the hash of its text and label, with a running number for copies. Without a
    group, a row is a group by its id, or by its text: equal texts then share a split.
    """
    rows = rows.sort_values(list(rows.columns), ignore_index=True)  # so that a running number does not follow from the order
    named = _present(rows, "id")
    hashes = pd.Series([_digest(text) for text in rows["text"]], index=rows.index, dtype=object)
    made = pd.Series([_digest(f"{text}\n{label}") for text, label in zip(rows["text"], rows["label"], strict=True)], index=rows.index)
    numbered = made + "-" + made.groupby(made).cumcount().astype(str)
    own = rows.get("id", pd.Series(None, index=rows.index, dtype=object))
    grouped = _present(rows, "group")
    group = rows.get("group", own)
    rows["group"] = group.where(grouped, own.where(named, hashes)).astype(str)
    rows["id"] = own.where(named, numbered).astype(str)
    leading = ["id", "group", "text", "label"]
    return rows[[*leading, *(name for name in rows.columns if name not in leading)]].sort_values("id", kind="stable", ignore_index=True)


def _present(rows: pd.DataFrame, column: str) -> "pd.Series[bool]":
    if column not in rows:
        return pd.Series(False, index=rows.index)
    return rows[column].notna() & (rows[column].astype(str).str.strip() != "")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
