"""An earlier test set or a regression set with the answers of candidate and champion, to detect forgetting."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.artifacts.predictions import Predictions


@dataclass(frozen=True)
class PastTestSet:
    """One earlier test set. `candidate` and `champion` answer the same rows in the same order; None without answers.

    `left_out` counts the rows that either model was trained on, or whose label the candidate lacks. `fault`: why the set is missing.
    """

    name: str
    candidate: Predictions | None = None
    champion: Predictions | None = None
    left_out: int = 0
    fault: str | None = None


def prepare_earlier(rows: pd.DataFrame, learnt: npt.NDArray[np.bool_], labels: Sequence[str] | None) -> tuple[pd.DataFrame, int]:
    """Return the `rows` (text, label) that can test a model, and the number of rows left out.

    Left out are rows used to train or validate candidate or champion (`learnt`, (rows,)), and rows whose label is not one of the
    candidate's `labels` (None for tasks without labels).
    """
    usable = ~learnt if labels is None else ~learnt & rows["label"].isin(list(labels)).to_numpy(dtype=np.bool_)
    kept = rows[usable].reset_index(drop=True)
    return kept, len(rows) - len(kept)
