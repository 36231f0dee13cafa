"""Who a row is: ids and groups for data that has none, and rows that share an id."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from components.artifacts.rows import GIVEN_SPLIT, canonical, in_order, pseudo_labelled
from components.core.text import text_key

COPY = "copy of the same row"
SHARED = "id is used by different rows"
SUPERSEDED = "pseudo-label of an id that has a label"


def add_ids_and_groups(frame: pd.DataFrame, texts: Sequence[str]) -> pd.DataFrame:
    """Return the rows with `id` and `group`, in canonical column order; `texts` are the columns that hold a row's text.

    A missing id is the hash of the text, and `#2` and so on for its further rows. A missing group is the id or, where that is
    missing too, the hash of the text: a split follows from the group, so neither a label nor another column may move a row.
    """
    identity = {}
    if "id" not in frame:
        hashes = hash_texts(frame, texts)
        identity = {"id": generate_ids(frame, hashes), "group": hashes}
    elif "group" not in frame:
        identity = {"group": frame["id"].tolist()}
    frame = frame.assign(**{name: values for name, values in identity.items() if name not in frame})
    return frame[in_order(list(frame.columns))]


def hash_texts(frame: pd.DataFrame, texts: Sequence[str]) -> list[str]:
    """Return the hash of each row's text, the same for texts that preprocessing may take for one, whatever its Unicode form."""
    columns = [["" if pd.isna(cell) else cell for cell in frame[name]] for name in texts]
    return [text_key(*cells) for cells in zip(*columns, strict=True)]


def generate_ids(frame: pd.DataFrame, hashes: Sequence[str]) -> list[str]:
    """Return the hash of each row's text as its id; rows that share a text are numbered by their cells, whatever their order.

    Pseudo-labelled rows come last: they must not change another row's id.
    """
    columns = [frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in in_order(list(frame.columns))]
    content = [canonical(cells) for cells in zip(*columns, strict=True)]
    pseudo = pseudo_labelled(frame).tolist()
    seen: Counter[str] = Counter()
    ids = list(hashes)
    for place in sorted(range(len(ids)), key=lambda place: (pseudo[place], content[place])):
        name = hashes[place]
        seen[name] += 1
        if seen[name] > 1:
            ids[place] = f"{name}#{seen[name]}"
    return ids


def sharing(rows: pd.DataFrame) -> dict[str, list[int]]:
    """Sort out `rows`, each of which shares its id with another: the reason, and the index of the rows that it holds for.

    Of identical copies the first is kept; where different rows have one id, nobody knows which is meant, and none is. A label wins over a
    pseudo-label.
    """
    pseudo = pseudo_labelled(rows)
    outdone = pseudo & rows["id"].isin(rows["id"][~pseudo])
    rest = rows[~outdone]
    if GIVEN_SPLIT in rest:  # a row that the source gives to two splits is a copy all the same; that of the test set stays
        rest = rest.sort_values(GIVEN_SPLIT, key=lambda given: given.map({"test": 0, "validation": 1}).fillna(2), kind="stable")
    copies = rest.drop(columns=GIVEN_SPLIT, errors="ignore").duplicated(keep="first")
    different = rest[~copies]["id"].value_counts()
    torn = rest["id"].isin(different[different > 1].index)
    return {
        COPY: rest.index[copies & ~torn].tolist(),
        SHARED: rest.index[torn].tolist(),
        SUPERSEDED: rows.index[outdone].tolist(),
    }
