"""Choose among candidate models by cross-validation. scikit-learn is imported inside the functions."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from components.model.support.metrics import Floats

Ints = npt.NDArray[np.int64]
Fold = tuple[Ints, Ints]
"""The indexes of the rows to fit on, and of the rows to predict."""
Names = Sequence[str] | npt.NDArray[Any]
Candidate = TypeVar("Candidate")

SEED = 0


def make_folds(groups: Names, classes: Names | None = None, *, count: int = 3) -> list[Fold]:
    """Return `count` folds of the rows; a group is in one fold, and each fold has about the same share of every class, if given.

    Fewer groups give fewer folds; a single group gives none.
    """
    import warnings

    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold

    units = np.unique(np.array(groups, dtype=np.str_), return_inverse=True)[1]
    distinct = int(units.max(initial=-1)) + 1
    if (count := min(count, distinct)) < 2:
        return []
    common = classes is not None and int(np.unique(np.array(classes, dtype=np.str_), return_counts=True)[1].max()) >= count
    splitter = GroupKFold(count, shuffle=True, random_state=SEED)
    if common:  # StratifiedGroupKFold loops over groups, which is slow if every row is one
        splitter = (StratifiedKFold if distinct == len(groups) else StratifiedGroupKFold)(count, shuffle=True, random_state=SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than folds is absent in some of them
        split = splitter.split(np.zeros(len(groups)), np.array(classes) if common else None, units)
        return [(kept, held) for kept, held in split if len(kept) and len(held)]


def choose(
    candidates: Sequence[Candidate],
    folds: Sequence[Fold],
    predict: Callable[[Candidate, Ints, Ints], Floats],
    score: Callable[[Floats, Ints], float],
) -> Candidate:
    """Return the candidate with the best score out of fold, on ties the first; without folds the first.

    `predict` fits a candidate on some rows and predicts others; `score` gets the predictions for all folds and the indexes of their
    rows; higher is better.
    """
    if not folds:
        return candidates[0]
    return max(candidates, key=lambda candidate: score(*out_of_fold(folds, lambda kept, held: predict(candidate, kept, held))))


def out_of_fold(folds: Sequence[Fold], predict: Callable[[Ints, Ints], Floats]) -> tuple[Floats, Ints]:
    """Return the predictions (rows, …) for the held-out rows of all `folds`, and the indexes of these rows in ascending order."""
    rows = np.concatenate([held for _, held in folds])
    order = np.argsort(rows, kind="stable")
    return np.concatenate([predict(kept, held) for kept, held in folds])[order], rows[order]
