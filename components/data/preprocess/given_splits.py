"""The splits that the source gives: they win over the hash, and what they have in common is told."""

import pandas as pd

from components.artifacts.rows import GIVEN_SPLIT
from components.data.preprocess.splits import SPLITS


def has_given_splits(rows: pd.DataFrame) -> bool:
    """Say whether the source gives any of these rows its split."""
    return GIVEN_SPLIT in rows and bool(rows[GIVEN_SPLIT].notna().any())


def apply_given_splits(rows: pd.DataFrame) -> "pd.Series[str]":
    """Return the split of each row: the one that the source gives; `rows` have that of their hash in `split`.

    A split that the source gives to no row is cut from its training rows by hash. So are rows without a given split: what is added
    later becomes no test row of a set that is published.
    """
    if not has_given_splits(rows):
        return rows["split"]
    given = rows[GIVEN_SPLIT].fillna("train")
    cut = (given == "train") & ~rows["split"].isin(set(given))
    return given.mask(cut, rows["split"])


def split_leaks(rows: pd.DataFrame, removed: pd.DataFrame) -> list[str]:
    """Say what the given splits have in common: groups, and the rows that were `removed` since another split has them too.

    `rows` are all rows with their split. Nothing where the source gives none.
    """
    if not has_given_splits(rows):
        return []
    warnings = []
    splits = rows.set_index("id")["split"]
    twins = removed[removed["duplicate_of"].notna()]
    other = splits.reindex(twins["duplicate_of"]).to_numpy()
    for of in SPLITS:
        for split in SPLITS:
            if split != of and (count := int(((twins["split"] == split) & (other == of)).sum())):
                warnings.append(f"the given splits leak: {count} rows of {split} were removed because {of} has the same or a similar text")
    if lost := int((removed["split"] == "test").sum()):
        warnings.append(
            f"{lost} of {int((splits == 'test').sum())} test rows that the source gives were removed as copies or for their labels"
        )
    shared = rows[~rows["id"].isin(removed["id"])].groupby("group")["split"].nunique()
    if torn := int((shared > 1).sum()):
        warnings.append(f"the given splits leak: {torn} of {len(shared)} groups have rows in several splits")
    return warnings
