"""Assign stable splits: the split of a row depends only on its group and the seed, or on the split that the source gives."""

import hashlib
from collections.abc import Iterable
from functools import cache
from itertools import permutations

import pandas as pd

from components.artifacts.rows import GIVEN_SPLIT
from components.core.errors import BadData

SPLITS = ("test", "validation", "train")
"""In the order of preference for keeping a duplicate."""

_FIX = (
    "add groups, merge the class into another one, or remove it from the data; "
    "with few groups, another preprocess.split_seed or larger shares may also help"
)


def hash_fraction(seed: int, key: str) -> float:
    """Return a number in [0, 1) that is uniform over keys: the first 64 bits of a sha256."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8]) / 2**64


def split_of(seed: int, key: str, test_share: float, validation_share: float) -> str:
    """Return the split of the group `key`."""
    fraction = hash_fraction(seed, key)
    if fraction < test_share:
        return "test"
    return "validation" if fraction < test_share + validation_share else "train"


def assign_splits(groups: Iterable[str], seed: int, test_share: float, validation_share: float) -> list[str]:
    """Return the split of each group in `groups`."""
    split = cache(split_of)
    return [split(seed, group, test_share, validation_share) for group in groups]


def has_given_splits(rows: pd.DataFrame) -> bool:
    """Return whether the source gives any of these rows a split."""
    return GIVEN_SPLIT in rows and bool(rows[GIVEN_SPLIT].notna().any())


def apply_given_splits(rows: pd.DataFrame) -> "pd.Series[str]":
    """Return the split of each row: the given one, else `split`, the one by hash.

    A split that no row is given is cut from the given training rows by hash. So are rows without a given split, but they never become
    test rows of a published test set.
    """
    if not has_given_splits(rows):
        return rows["split"]
    given = rows[GIVEN_SPLIT].fillna("train")
    cut = (given == "train") & ~rows["split"].isin(set(given))
    return given.mask(cut, rows["split"])


def split_leaks(rows: pd.DataFrame, removed: pd.DataFrame) -> list[str]:
    """Return warnings about groups and texts that given splits share; `rows` are all rows with their split.

    Empty if the source gives no splits.
    """
    if not has_given_splits(rows):
        return []
    warnings = []
    splits = rows.set_index("id")["split"]
    twins = removed[removed["duplicate_of"].notna()]
    kept_in = splits.reindex(twins["duplicate_of"]).to_numpy()
    for other, split in permutations(SPLITS, 2):
        if count := int(((twins["split"] == split) & (kept_in == other)).sum()):
            warnings.append(f"the given splits leak: {count} rows of {split} were removed because {other} has the same or a similar text")
    if lost := int((removed["split"] == "test").sum()):
        warnings.append(f"{lost} of {int((splits == 'test').sum())} given test rows were removed as copies or for their labels")
    shared = rows[~rows["id"].isin(removed["id"])].groupby("group")["split"].nunique()
    if spread := int((shared > 1).sum()):
        warnings.append(f"the given splits leak: {spread} of {len(shared)} groups have rows in several splits")
    return warnings


def check_splits(rows: pd.DataFrame, removed: pd.DataFrame, classes: bool = True) -> None:
    """Check that the kept rows (group, label, split) are in every split, and with `classes` that every label is in train and test.

    Raises:
        BadData: no rows or only one class remain, a class cannot be in every split, or a split is empty.
    """
    counts = ", ".join(f"{count} {reason}" for reason, count in removed["reason"].value_counts().items()) or "none removed"
    labels = sorted(set(rows["label"]))
    if rows.empty:
        raise BadData(f"no rows remain ({counts})")
    if classes and len(labels) < 2:
        raise BadData(f"classification needs at least two labels; only the label {labels[0]!r} remains in {len(rows)} rows ({counts})")
    faults = [fault for _, class_rows in rows.groupby("label", sort=True) if (fault := _class_fault(class_rows))] if classes else []
    if faults:
        raise BadData(f"{len(faults)} of {len(labels)} classes cannot be trained and tested: {'; '.join(faults)}. To fix it, {_FIX}")
    if empty := [split for split in SPLITS if not (rows["split"] == split).any()]:
        groups = rows["group"].nunique()
        raise BadData(f"no row of {len(rows)} in {groups} groups is in {' and '.join(empty)}; add groups or raise its share")


def _class_fault(rows: pd.DataFrame) -> str | None:
    label, groups = rows["label"].iloc[0], rows["group"].nunique()
    size = f"{label!r} has {groups} group{'s' if groups != 1 else ''} ({len(rows)} rows)"
    if groups < len(SPLITS):
        return f"{size}, expected at least {len(SPLITS)}, one for each split"
    missing = [split for split in ("train", "test") if not (rows["split"] == split).any()]
    return f"{size}, none of them in {' and '.join(missing)}" if missing else None
