"""Who a row is: ids and groups for data that has none, and rows that share an id."""

from collections import Counter

import pandas as pd

from components.artifacts.rows import in_order, row_hash

COPY = "copy of the same row"
SHARED = "id is used by different rows"


def with_identity(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with `id` and `group`, in canonical column order.

    An id that is missing is the hash of the row, and `#2` and so on for its copies; a missing group is the id.
    """
    if "id" not in frame:
        frame = frame.assign(id=made_ids(frame))
    if "group" not in frame:
        frame = frame.assign(group=frame["id"])
    return frame[in_order(list(frame.columns))]


def made_ids(frame: pd.DataFrame) -> list[str]:
    """Return an id for every row that depends on the row alone, whatever the order of rows and columns."""
    columns = [frame[name].astype(object).where(frame[name].notna(), None).tolist() for name in in_order(list(frame.columns))]
    seen: Counter[str] = Counter()
    ids = []
    for cells in zip(*columns, strict=True):
        name = row_hash(cells)[:16]
        seen[name] += 1
        ids.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return ids


def sharing(rows: pd.DataFrame) -> dict[str, list[int]]:
    """Sort out `rows`, each of which shares its id with another: the reason, and the index of the rows that it holds for.

    Of identical copies the first is kept; where different rows have one id, nobody knows which is meant, and none is.
    """
    copies = rows.duplicated(keep="first")
    different = rows[~copies]["id"].value_counts()
    torn = rows["id"].isin(different[different > 1].index)
    return {COPY: rows.index[copies & ~torn].tolist(), SHARED: rows.index[torn].tolist()}
