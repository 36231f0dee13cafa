"""Retrieval with a model or a baseline."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from components.model.tasks.contrastive import retrieval
from components.model.tasks.contrastive.retrieval import Floats
from components.model.tasks.contrastive.rows import key, sides

Index = Callable[[Sequence[str]], Callable[[Sequence[str]], Floats]]
"""Indexes a corpus; the result maps queries to similarities (queries, corpus)."""


def measure(rows: pd.DataFrame, data: str, index: Index) -> Mapping[str, Floats]:
    """Return the row statistics of `retrieval.measure` or `agreement`, searching the expected texts of all rows."""
    queries, expected = sides(rows, data)
    keys = [key(text) for text in expected]
    distinct, first = retrieval.corpus(keys)
    if not len(rows):
        return {}
    search = index([expected[index] for index in first])
    if data == "scored":
        positions = np.searchsorted(distinct, keys)
        similarity = [search([query])[0, position] for query, position in zip(queries, positions, strict=True)]
        return retrieval.agreement(np.array(similarity), np.array([float(score) for score in rows["score"]]))
    return retrieval.measure(lambda start, stop: search(queries[start:stop]), [key(query) for query in queries], keys)


def top_results(rows: pd.DataFrame, data: str, measured: Mapping[str, Floats]) -> list[list[str]]:
    """Return the first results of each row, the most similar first; empty without a search."""
    if retrieval.SHOWN[0] not in measured:
        return [[] for _ in range(len(rows))]
    _, expected = sides(rows, data)
    _, first = retrieval.corpus([key(text) for text in expected])
    positions = np.stack([measured[name] for name in retrieval.SHOWN], axis=1).astype(np.int64)
    return [[expected[first[position]] for position in dict.fromkeys(row)] for row in positions.tolist()]
