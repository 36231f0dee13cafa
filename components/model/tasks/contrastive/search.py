"""Asking anything that compares texts, a model or a baseline, to find what the rows want found."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from components.model.tasks.contrastive import retrieval
from components.model.tasks.contrastive.reading import key, sides
from components.model.tasks.contrastive.retrieval import Floats

Index = Callable[[Sequence[str]], Callable[[Sequence[str]], Floats]]
"""Given the corpus, returns what gives queries their similarity to each text of it, (queries, corpus)."""


def measured(rows: pd.DataFrame, data: str, index: Index) -> Mapping[str, Floats]:
    """Return the statistics of each of `rows`, whose texts are searched all together: what `retrieval.measure` says, or `agreement`."""
    queries, wanted = sides(rows, data)
    keys = [key(text) for text in wanted]
    distinct, first = retrieval.corpus(keys)
    if not len(rows):
        return {}
    search = index([wanted[place] for place in first])
    if data == "scored":
        own = np.searchsorted(distinct, keys)
        similar = [search([query])[0, place] for query, place in zip(queries, own, strict=True)]
        return retrieval.agreement(np.array(similar), np.array([float(score) for score in rows["score"]]))
    return retrieval.measure(lambda start, stop: search(queries[start:stop]), [key(query) for query in queries], keys)


def found_first(rows: pd.DataFrame, data: str, measured: Mapping[str, Floats]) -> list[list[str]]:
    """Return for each row the texts that were found first, the most similar first; none where nothing was searched."""
    if retrieval.SHOWN[0] not in measured:
        return [[] for _ in range(len(rows))]
    _, wanted = sides(rows, data)
    _, first = retrieval.corpus([key(text) for text in wanted])
    places = np.stack([measured[name] for name in retrieval.SHOWN], axis=1).astype(np.int64)
    return [[wanted[first[place]] for place in dict.fromkeys(row)] for row in places.tolist()]
