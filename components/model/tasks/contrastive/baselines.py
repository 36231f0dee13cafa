"""The TF-IDF and BM25 baselines."""

from collections.abc import Callable, Sequence

import numpy as np

from components.model.tasks.contrastive.retrieval import Floats

_WORD = r"(?u)\b\w+\b"


def tfidf(corpus: Sequence[str]) -> Callable[[Sequence[str]], Floats]:
    """Index `corpus` for search by cosine of TF-IDF vectors."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(token_pattern=_WORD, sublinear_tf=True)
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

    words: list[list[str]] = bm25s.tokenize(list(texts), token_pattern=_WORD, stopwords=None, return_ids=False, show_progress=False)
    return words
