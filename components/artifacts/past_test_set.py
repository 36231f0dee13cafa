"""An earlier test set, or a regression set, and what candidate and champion answer on it: may what was once learnt be forgotten?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.artifacts.predictions import Predictions


@dataclass(frozen=True)
class PastTestSet:
    """One earlier test set. `candidate` and `champion` answer the same rows in the same order; None where there are no answers.

    `left_out` counts the rows that either was trained on, or whose label the candidate does not have. `fault` says why the set is missing.
    """

    name: str
    candidate: Predictions | None = None
    champion: Predictions | None = None
    left_out: int = 0
    fault: str | None = None


def prepare_earlier(rows: pd.DataFrame, learnt: npt.NDArray[np.bool_], labels: Sequence[str] | None) -> tuple[pd.DataFrame, int]:
    """Return the `rows` (text, label) that can test a model, and how many were left out.

    Left out are rows that candidate or champion was trained or validated on (`learnt`, (rows,)), and rows whose label is not among the
    candidate's `labels`, where it has any.
    """
    known = ~learnt if labels is None else ~learnt & rows["label"].isin(list(labels)).to_numpy(dtype=np.bool_)
    kept = rows[known].reset_index(drop=True)
    return kept, len(rows) - len(kept)
