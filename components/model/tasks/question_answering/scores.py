"""Exact match and F1 of answers as in SQuAD.

Equal to the official script of version 2.0 (evaluate-v2.0.py; Rajpurkar et al. 2018, "Know What You Don't Know"), which for
answers with words equals version 1.1. Values are between 0 and 1.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from components.model.support.metrics import Floats

_TOLERANCE = 1e-9  # for sums of F1 in another order
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Return `text` in lower case, without ASCII punctuation and English articles, with single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def exact(predicted: str, expected: Sequence[str]) -> float:
    """Return 1 if `predicted` equals an accepted answer after normalisation; "" is no answer."""
    return float(any(normalised(predicted) == normalised(answer) for answer in accepted(expected)))


def f1(predicted: str, expected: Sequence[str]) -> float:
    """Return the best bag-of-words F1 of `predicted` with an accepted answer; "" is no answer."""
    return max(_f1(normalised(predicted).split(), normalised(answer).split()) for answer in accepted(expected))


def accepted(expected: Sequence[str]) -> list[str]:
    """Return the answers that contain a word; [""] (no answer) if there are none."""
    return [answer for answer in expected if normalised(answer)] or [""]


def _f1(predicted: list[str], expected: list[str]) -> float:
    if not predicted or not expected:
        return float(predicted == expected)
    common = sum((Counter(predicted) & Counter(expected)).values())
    return 2 * common / (len(predicted) + len(expected))


def best_threshold(margins: Floats, answered: Floats, unanswered: Floats) -> float:
    """Return the threshold with the highest mean score if questions with a larger margin stay unanswered.

    `margins` (rows,) are no-answer scores minus span scores; `answered` and `unanswered` (rows,) are the scores of each row in either case.
    Candidates are midpoints between margins; `find_best_thresh` of the official script uses the margins, so that rounding decides the row.
    On ties the threshold nearest to 0 is used; without rows it is 0.
    """
    if not len(margins):
        return 0.0
    order = np.argsort(margins, kind="stable")
    gains = np.concatenate([[0.0], np.cumsum((answered - unanswered)[order])])
    edges = np.unique(margins)
    candidates = np.concatenate([[0.0, edges[0] - 1, edges[-1] + 1], (edges[1:] + edges[:-1]) / 2])
    totals = gains[np.searchsorted(margins[order], candidates, side="right")]
    best = candidates[totals >= totals.max() - _TOLERANCE]
    return round(float(best[np.abs(best).argmin()]), 4)  # hardware differences must not change the model
