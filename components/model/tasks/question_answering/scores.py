"""Exact match and F1 of answers as SQuAD counts them.

Equal to the official script of version 2.0 (evaluate-v2.0.py; Rajpurkar et al. 2018, "Know What You Don't Know"), which for
answers with words equals that of 1.1. Shares, not per cent. The standard library and numpy alone.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_EQUAL = 1e-9  # sums of F1 in another order differ by less
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """Return `text` in lower case, without ASCII punctuation and English articles, with single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def exact(predicted: str, expected: Sequence[str]) -> float:
    """Return 1 where `predicted` is one of the accepted answers, normalised; "" stands for no answer."""
    return float(any(normalised(predicted) == normalised(answer) for answer in accepted(expected)))


def f1(predicted: str, expected: Sequence[str]) -> float:
    """Return the best F1 of the bags of words of `predicted` and one of the accepted answers; "" stands for no answer."""
    return max(_f1(normalised(predicted).split(), normalised(answer).split()) for answer in accepted(expected))


def accepted(expected: Sequence[str]) -> list[str]:
    """Return the answers that have a word; where there are none, the right answer is none."""
    return [answer for answer in expected if normalised(answer)] or [""]


def _f1(predicted: list[str], expected: list[str]) -> float:
    if not predicted or not expected:
        return float(predicted == expected)
    common = sum((Counter(predicted) & Counter(expected)).values())
    return 2 * common / (len(predicted) + len(expected))


def best_threshold(margins: Floats, answered: Floats, unanswered: Floats) -> float:
    """Return the threshold at which the mean score is highest if a question is left unanswered whose margin is above it.

    `margins` (rows,) are the scores of no answer less those of the best span; `answered` and `unanswered` (rows,) are what each row
    gains in either case. Thresholds lie between the rows' margins: `find_best_thresh` of the official script takes a margin itself, and
    a rounding decides on that row. Of equally good ones the nearest to 0 is taken; without rows it is 0.
    """
    if not len(margins):
        return 0.0
    order = np.argsort(margins, kind="stable")
    gains = np.concatenate([[0.0], np.cumsum((answered - unanswered)[order])])
    edges = np.unique(margins)
    candidates = np.concatenate([[0.0, edges[0] - 1, edges[-1] + 1], (edges[1:] + edges[:-1]) / 2])
    totals = gains[np.searchsorted(margins[order], candidates, side="right")]
    best = candidates[totals >= totals.max() - _EQUAL]
    return round(float(best[np.abs(best).argmin()]), 4)  # another machine's last digits must not make another model
