"""Retrieval with a model or a baseline: TF-IDF and BM25."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from components.core.text import TERM
from components.model.support.metrics import Floats
from components.model.tasks.contrastive import retrieval
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


def tfidf(corpus: Sequence[str]) -> Callable[[Sequence[str]], Floats]:
    """Index `corpus` for search by cosine of TF-IDF vectors."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(token_pattern=TERM.pattern, sublinear_tf=True)
    if not any(map(vectorizer.build_analyzer(), corpus)):
        return lambda queries: np.zeros((len(queries), len(corpus)))
    indexed = vectorizer.fit_transform(corpus)
    return lambda queries: np.asarray((vectorizer.transform(queries) @ indexed.T).toarray(), dtype=np.float64)


def bm25(corpus: Sequence[str]) -> Callable[[Sequence[str]], Floats]:
    """Index `corpus` with bm25s (Lucene's formula, k1 1.5, b 0.75)."""
    import bm25s  # type: ignore[import-untyped]

    retriever = bm25s.BM25()
    words = _words(corpus)
    if not any(words):
        return lambda queries: np.zeros((len(queries), len(corpus)))
    retriever.index(words, show_progress=False)

    def search(queries: Sequence[str]) -> Floats:
        zeros = np.zeros(len(corpus))
        return np.stack([np.asarray(retriever.get_scores(query), dtype=np.float64) if query else zeros for query in _words(queries)])

    return search


def _words(texts: Sequence[str]) -> list[list[str]]:
    import bm25s

    words: list[list[str]] = bm25s.tokenize(list(texts), token_pattern=TERM.pattern, stopwords=None, return_ids=False, show_progress=False)
    return words
