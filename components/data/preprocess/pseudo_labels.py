"""Find pseudo-labelled rows to remove: they are for training only, and a label wins over them.

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
    """Return the pseudo-labelled rows whose group is not in train.

    Even if the group has no labelled row yet: a later one would be a test row of a text that the model was trained on.
    """
    removed = rows[pseudo_labelled(rows) & (rows["split"] != "train")]
    first = rows[~pseudo_labelled(rows)].drop_duplicates("group").set_index("group")["id"]
    return as_removed(removed["id"].tolist(), OUTSIDE, [first.get(group) for group in removed["group"]])


def labelled(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the pseudo-labelled rows whose text also has a label."""
    first = rows[~pseudo_labelled(rows)].drop_duplicates("text").set_index("text")["id"]
    removed = rows[pseudo_labelled(rows) & rows["text"].isin(first.index)]
    return as_removed(removed["id"].tolist(), LABELLED, [first[text] for text in removed["text"]])


def unknown(rows: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Return the pseudo-labelled rows with a label that no labelled row has, because it cannot be tested."""
    pseudo = pseudo_labelled(rows)
    unknown_labels = task.label_counts(rows).keys() - task.label_counts(rows[~pseudo]).keys()
    if not unknown_labels:
        return as_removed([], UNKNOWN, [])
    candidates = rows[pseudo]
    has_unknown = [not unknown_labels.isdisjoint(task.label_counts(candidates.iloc[[index]])) for index in range(len(candidates))]
    removed = candidates[has_unknown]
    return as_removed(removed["id"].tolist(), UNKNOWN, [None] * len(removed))


def by_version(rows: pd.DataFrame) -> dict[str, int]:
    """Return the number of pseudo-labelled rows by version, NAME/VERSION."""
    if PSEUDO not in rows:
        return {}
    counts = rows.loc[pseudo_labelled(rows), PSEUDO].str.strip().value_counts()
    return {str(name): int(counts[name]) for name in sorted(counts.index)}
