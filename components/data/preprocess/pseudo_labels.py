"""Which pseudo-labelled rows must go: they are for training only, and a label wins over them.

As in `duplicates`, every function takes rows with id, group, text, label and split, ordered by id, and returns the rows to remove.
"""

import pandas as pd

from components.artifacts.rows import PSEUDO, pseudo_labelled
from components.data.preprocess.duplicates import as_removed
from components.model.tasks import Task

OUTSIDE = "pseudo-label outside training"
LABELLED = "pseudo-label of a labelled text"
UNKNOWN = "pseudo-label that no row has"

REASONS = (OUTSIDE, LABELLED, UNKNOWN)


def outside(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the pseudo-labelled rows whose group falls into another split than training.

    Not only those that share the group with a row there: one may come, and then a model would have trained on what tests the next one.
    """
    gone = rows[pseudo_labelled(rows) & (rows["split"] != "train")]
    first = rows[~pseudo_labelled(rows)].drop_duplicates("group").set_index("group")["id"]
    return as_removed(gone["id"].tolist(), OUTSIDE, [first.get(group) for group in gone["group"]])


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the pseudo-labelled rows whose text a row with a label has."""
    first = rows[~pseudo_labelled(rows)].drop_duplicates("text").set_index("text")["id"]
    gone = rows[pseudo_labelled(rows) & rows["text"].isin(first.index)]
    return as_removed(gone["id"].tolist(), LABELLED, [first[text] for text in gone["text"]])


def unknown(rows: pd.DataFrame, kind: Task) -> pd.DataFrame:
    """Return the pseudo-labelled rows with a label that no other row has: it could not be tested."""
    pseudo = pseudo_labelled(rows)
    strange = kind.label_counts(rows).keys() - kind.label_counts(rows[~pseudo]).keys()
    if not strange:
        return as_removed([], UNKNOWN, [])
    candidates = rows[pseudo]
    held = [not strange.isdisjoint(kind.label_counts(candidates.iloc[[place]])) for place in range(len(candidates))]
    gone = candidates[held]
    return as_removed(gone["id"].tolist(), UNKNOWN, [None] * len(gone))


def by_version(rows: pd.DataFrame) -> dict[str, int]:
    """Return how many of `rows` each version has labelled, by NAME/VERSION."""
    if PSEUDO not in rows:
        return {}
    counts = rows.loc[pseudo_labelled(rows), PSEUDO].str.strip().value_counts()
    return {str(name): int(counts[name]) for name in sorted(counts.index)}
