"""Add missing ids and groups, and resolve rows that share an id."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from components.artifacts.rows import GIVEN_SPLIT, canonical, in_order, pseudo_labelled
from components.core.text import text_key

COPY = "copy of the same row"
SHARED = "id is used by different rows"
SUPERSEDED = "pseudo-label of an id that has a label"


def add_ids_and_groups(frame: pd.DataFrame, texts: Sequence[str]) -> pd.DataFrame:
    """Return the rows with `id` and `group` in canonical column order; `texts` are the columns with the row's text.

    A missing id is the hash of the text, with `#2` and so on for further rows. A missing group is the id or, without ids, the hash of
    the text: the split depends on the group, so a changed label or other column must not move a row.
    """
    identity = {}
    if "id" not in frame:
        columns = [frame[name].fillna("") for name in texts]
        hashes = [text_key(*cells) for cells in zip(*columns, strict=True)]  # equal for texts that differ only in Unicode form
        identity = {"id": generate_ids(frame, hashes), "group": hashes}
    elif "group" not in frame:
        identity = {"group": frame["id"].tolist()}
    frame = frame.assign(**{name: values for name, values in identity.items() if name not in frame})
    return frame[in_order(list(frame.columns))]


def generate_ids(frame: pd.DataFrame, hashes: Sequence[str]) -> list[str]:
    """Return the hash of each row's text as its id; rows with the same text are numbered by their cells, in any row order.

    Pseudo-labelled rows come last, so that they do not change another row's id.
    """
    columns = [frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in in_order(list(frame.columns))]
    content = [canonical(cells) for cells in zip(*columns, strict=True)]
    pseudo = pseudo_labelled(frame).tolist()
    counts: Counter[str] = Counter()
    ids = list(hashes)
    for index in sorted(range(len(ids)), key=lambda index: (pseudo[index], content[index])):
        name = hashes[index]
        counts[name] += 1
        if counts[name] > 1:
            ids[index] = f"{name}#{counts[name]}"
    return ids


def resolve_shared_ids(rows: pd.DataFrame) -> dict[str, list[int]]:
    """Return the rows to remove, as index by reason; every row of `rows` shares its id with another.

    The first of identical copies stays. Different rows with one id are all removed. A label wins over a pseudo-label.
    """
    pseudo = pseudo_labelled(rows)
    superseded = pseudo & rows["id"].isin(rows["id"][~pseudo])
    rest = rows[~superseded]
    if GIVEN_SPLIT in rest:  # a row in two given splits is a copy too; the one in the test set stays
        rest = rest.sort_values(GIVEN_SPLIT, key=lambda given: given.map({"test": 0, "validation": 1}).fillna(2), kind="stable")
    copies = rest.drop(columns=GIVEN_SPLIT, errors="ignore").duplicated(keep="first")
    distinct = rest[~copies]["id"].value_counts()
    ambiguous = rest["id"].isin(distinct[distinct > 1].index)
    return {
        COPY: rest.index[copies & ~ambiguous].tolist(),
        SHARED: rest.index[ambiguous].tolist(),
        SUPERSEDED: rows.index[superseded].tolist(),
    }
