"""How well the right texts are found among all that are searched: ranks, and what follows from them for each row. Numpy alone.

The corpus are the distinct texts that the rows want found, in the order of their keys, which are hashes: of equally similar texts the
earlier counts as more similar, so that ties are decided by lot, the same lot for every model.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Scores = Callable[[int, int], Floats]
"""Given the first row and the one after the last: the similarity of these rows to each text of the corpus, (rows, corpus)."""

CUTS = (1, 5, 10)  # of recall
DEPTH = 10  # of nDCG
SHOWN = ("first", "second", "third")

_CHUNK = 512  # rows
_DIGITS = 6  # of a similarity: the last ones of a float32 must not decide between equal ones


def corpus(keys: Sequence[int] | Ints) -> tuple[Ints, Ints]:
    """Return the distinct keys in their order, and where each stands first in `keys`."""
    found, first = np.unique(np.asarray(keys, dtype=np.int64), return_index=True)
    return found, first.astype(np.int64)


def measure(scores: Scores, queries: Sequence[int] | Ints, wanted: Sequence[int] | Ints) -> dict[str, Floats]:
    """Return the statistics of each row, each (rows,), from the keys of its query and of the text that it wants found.

    Right for a row is every text that a row with the same query wants. `reciprocal_rank` is that of the first right text;
    `recall_at_K` the share of the right ones among the first K; `ndcg_at_10` with a gain of 1 for a right text (Järvelin & Kekäläinen,
    2002, with log2(rank + 1)). `first`, `second` and `third` are the places in the corpus of what was found first.
    """
    keys, _ = corpus(wanted)
    rows, places = _right(np.asarray(queries, dtype=np.int64), np.searchsorted(keys, np.asarray(wanted, dtype=np.int64)))
    ranks = np.zeros(len(rows), dtype=np.int64)
    best = np.zeros((len(queries), len(SHOWN)))
    for start in range(0, len(queries), _CHUNK):
        stop = min(start + _CHUNK, len(queries))
        similar = np.round(scores(start, stop), _DIGITS)
        within = slice(*np.searchsorted(rows, [start, stop]))
        ranks[within] = _ranks(similar, rows[within] - start, places[within])
        order = np.argsort(-similar, axis=1, kind="stable")[:, : len(SHOWN)]
        best[start:stop] = order[:, np.minimum(np.arange(len(SHOWN)), order.shape[1] - 1)]
    return {**_statistics(ranks, rows, len(queries)), **dict(zip(SHOWN, best.T, strict=True))}


def agreement(similarity: Floats, score: Floats) -> dict[str, Floats]:
    """Return what Spearman's correlation is a function of: ranks over all rows, from -1/2 to 1/2 and 0 in the mean, and products."""
    one, other = (_centred(values) for values in (np.round(similarity, _DIGITS), score))
    names = ("similarity_rank", "score_rank", "rank_product", "similarity_square", "score_square")
    return dict(zip(names, (one, other, one * other, one * one, other * other), strict=True))


def correlation(one: Floats, other: Floats, product: Floats, square: Floats, squared: Floats, rows: Floats) -> Floats:
    """Return Pearson's correlation from the sums of two variables, their product, their squares and the number of rows; 0 of a constant."""
    one, other, product, square, squared, rows = (
        np.asarray(each, dtype=np.float64) for each in (one, other, product, square, squared, rows)
    )
    count = np.maximum(rows, 1)
    spread = np.sqrt(np.maximum(square - one * one / count, 0) * np.maximum(squared - other * other / count, 0))
    below = np.where(spread > 0, spread, 1)
    return np.asarray(np.where(spread > 0, np.clip((product - one * other / count) / below, -1, 1), 0.0), dtype=np.float64)


def _right(queries: Ints, places: Ints) -> tuple[Ints, Ints]:
    """Return rows and places in the corpus, a pair for each right text of each row, ordered by row."""
    by_query: Mapping[int, set[int]] = {int(query): set() for query in queries}
    for query, place in zip(queries.tolist(), places.tolist(), strict=True):
        by_query[query].add(place)
    pairs = [(row, place) for row, query in enumerate(queries.tolist()) for place in sorted(by_query[query])]
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _ranks(similar: Floats, rows: Ints, places: Ints) -> Ints:
    """Return the rank of each place in its row's similarities, from 1."""
    found = np.zeros(len(rows), dtype=np.int64)
    for start in range(0, len(rows), _CHUNK):
        own, at = rows[start : start + _CHUNK], places[start : start + _CHUNK]
        others, mine = similar[own], similar[own, at][:, None]
        before = np.arange(similar.shape[1]) < at[:, None]
        found[start : start + _CHUNK] = 1 + (others > mine).sum(axis=1) + ((others == mine) & before).sum(axis=1)
    return found


def _statistics(ranks: Ints, rows: Ints, count: int) -> dict[str, Floats]:
    """Return what follows from the ranks of the right texts of each of `count` rows."""
    right = np.bincount(rows, minlength=count)
    gains = np.where(ranks <= DEPTH, 1 / np.log2(ranks + 1), 0.0)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(1, DEPTH + 1) + 1))])
    first = np.full(count, np.inf)
    np.minimum.at(first, rows, ranks)
    recalls = {f"recall_at_{cut}": np.bincount(rows, ranks <= cut, minlength=count) / right for cut in CUTS}
    return {
        "reciprocal_rank": 1 / first,
        **recalls,
        "ndcg_at_10": np.bincount(rows, gains, minlength=count) / ideal[np.minimum(right, DEPTH)],
    }


def _centred(values: Floats) -> Floats:
    """Return the ranks of `values`, equal ones sharing their mean, around 0 and over the number of rows."""
    ranks = pd.Series(np.asarray(values, dtype=np.float64)).rank().to_numpy(dtype=np.float64)
    return np.asarray((ranks - (len(ranks) + 1) / 2) / max(len(ranks), 1), dtype=np.float64)
