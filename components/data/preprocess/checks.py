"""Whether what is left can be learnt and tested: every class in enough groups, no split empty."""

import pandas as pd

from components.core.errors import BadData
from components.data.preprocess.splits import SPLITS

_MEND = (
    "give them more groups, merge them into another class, or leave them out of the data; "
    "with few groups, another preprocess.split_seed or larger shares may also do"
)


def check(rows: pd.DataFrame, removed: pd.DataFrame, classes: bool = True) -> None:
    """Check the kept rows, which have group, label and split; with `classes`, that each label is in every split.

    Raises:
        BadData: nothing is left, only one class is, a class cannot be in every split, or a split is empty.
    """
    gone = ", ".join(f"{count} {reason}" for reason, count in removed["reason"].value_counts().items()) or "none removed"
    labels = sorted(set(rows["label"]))
    if rows.empty:
        raise BadData(f"no row is left ({gone})")
    if classes and len(labels) < 2:
        raise BadData(f"classification needs two labels or more; only the label {labels[0]!r} is left in {len(rows)} rows ({gone})")
    faults = [fault for label, own in rows.groupby("label", sort=True) if (fault := _fault(own))] if classes else []
    if faults:
        named = "; ".join(faults)
        raise BadData(f"{len(faults)} of {len(labels)} classes cannot be learnt and tested: {named}. What to do: {_MEND}")
    if empty := [split for split in SPLITS if not (rows["split"] == split).any()]:
        groups = rows["group"].nunique()
        raise BadData(f"no row of {len(rows)} in {groups} groups fell into {' and '.join(empty)}; give more groups or raise its share")


def _fault(rows: pd.DataFrame) -> str | None:
    """Return what is wrong with the rows of one label, if anything."""
    label, groups = rows["label"].iloc[0], rows["group"].nunique()
    found = f"{label!r} has {groups} group{'s' if groups != 1 else ''} ({len(rows)} rows)"
    if groups < len(SPLITS):
        return f"{found}, expected {len(SPLITS)} or more, one for each split"
    missing = [split for split in ("train", "test") if not (rows["split"] == split).any()]
    return f"{found}, of which none fell into {' and '.join(missing)}" if missing else None
