"""Retrieval metrics: ranks of the correct texts in the corpus, and row statistics.

The corpus consists of the distinct expected texts, ordered by key. Keys are hashes, so ties (the earlier text wins) are broken in random
order, which is the same for every model.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.model.support.metrics import Floats

Ints = npt.NDArray[np.int64]
Scores = Callable[[int, int], Floats]
"""Maps start and end of a row range to similarities, (rows, corpus)."""

CUTS = (1, 5, 10)  # of recall
DEPTH = 10  # of nDCG
SHOWN = ("first", "second", "third")

_CHUNK = 512  # rows
_DIGITS = 6  # of a similarity, so that float32 rounding does not break ties


def corpus(keys: Sequence[int] | Ints) -> tuple[Ints, Ints]:
    """Return the sorted distinct keys, and the first index of each in `keys`."""
    distinct, first = np.unique(np.asarray(keys, dtype=np.int64), return_index=True)
    return distinct, first.astype(np.int64)


def measure(scores: Scores, queries: Sequence[int] | Ints, expected: Sequence[int] | Ints) -> dict[str, Floats]:
    """Return the row statistics, each (rows,), from the keys of queries and expected texts.

    The correct texts of a row are the expected texts of all rows with the same query. `reciprocal_rank` is that of the first correct text;
    `recall_at_K` the share of correct texts among the first K; `ndcg_at_10` uses a gain of 1 per correct text (Järvelin & Kekäläinen, 2002,
    with log2(rank + 1)). `first`, `second` and `third` are corpus indexes of the first results.
    """
    keys, _ = corpus(expected)
    rows, indexes = _correct(np.asarray(queries, dtype=np.int64), np.searchsorted(keys, np.asarray(expected, dtype=np.int64)))
    ranks = np.zeros(len(rows), dtype=np.int64)
    best = np.zeros((len(queries), len(SHOWN)))
    for start in range(0, len(queries), _CHUNK):
        stop = min(start + _CHUNK, len(queries))
        similarity = np.round(scores(start, stop), _DIGITS)
        within = slice(*np.searchsorted(rows, [start, stop]))
        ranks[within] = _ranks(similarity, rows[within] - start, indexes[within])
        order = np.argsort(-similarity, axis=1, kind="stable")[:, : len(SHOWN)]
        best[start:stop] = order[:, np.minimum(np.arange(len(SHOWN)), order.shape[1] - 1)]
    return {**_statistics(ranks, rows, len(queries)), **dict(zip(SHOWN, best.T, strict=True))}


def agreement(similarity: Floats, score: Floats) -> dict[str, Floats]:
    """Return the row statistics of Spearman's correlation: ranks over all rows, from -1/2 to 1/2 with mean 0, and products."""
    a, b = (_centred(values) for values in (np.round(similarity, _DIGITS), score))
    names = ("similarity_rank", "score_rank", "rank_product", "similarity_square", "score_square")
    return dict(zip(names, (a, b, a * b, a * a, b * b), strict=True))


def _correct(queries: Ints, indexes: Ints) -> tuple[Ints, Ints]:
    """Return row and corpus index of each correct text, ordered by row."""
    by_query: Mapping[int, set[int]] = {int(query): set() for query in queries}
    for query, index in zip(queries.tolist(), indexes.tolist(), strict=True):
        by_query[query].add(index)
    pairs = [(row, index) for row, query in enumerate(queries.tolist()) for index in sorted(by_query[query])]
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _ranks(similarity: Floats, rows: Ints, indexes: Ints) -> Ints:
    """Return the rank (from 1) of each corpus index in the similarities of its row."""
    ranks = np.zeros(len(rows), dtype=np.int64)
    for start in range(0, len(rows), _CHUNK):
        chunk, targets = rows[start : start + _CHUNK], indexes[start : start + _CHUNK]
        scores, target_scores = similarity[chunk], similarity[chunk, targets][:, None]
        before = np.arange(similarity.shape[1]) < targets[:, None]
        ranks[start : start + _CHUNK] = 1 + (scores > target_scores).sum(axis=1) + ((scores == target_scores) & before).sum(axis=1)
    return ranks


def _statistics(ranks: Ints, rows: Ints, count: int) -> dict[str, Floats]:
    """Return the row statistics of `count` rows from the ranks of their correct texts."""
    correct = np.bincount(rows, minlength=count)
    gains = np.where(ranks <= DEPTH, 1 / np.log2(ranks + 1), 0.0)
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(1, DEPTH + 1) + 1))])
    first = np.full(count, np.inf)
    np.minimum.at(first, rows, ranks)
    recalls = {f"recall_at_{cut}": np.bincount(rows, ranks <= cut, minlength=count) / correct for cut in CUTS}
    return {
        "reciprocal_rank": 1 / first,
        **recalls,
        "ndcg_at_10": np.bincount(rows, gains, minlength=count) / ideal[np.minimum(correct, DEPTH)],
    }


def _centred(values: Floats) -> Floats:
    """Return the ranks of `values` (ties share the mean rank), centred at 0 and divided by the number of rows."""
    ranks = pd.Series(np.asarray(values, dtype=np.float64)).rank().to_numpy(dtype=np.float64)
    return np.asarray((ranks - (len(ranks) + 1) / 2) / max(len(ranks), 1), dtype=np.float64)
