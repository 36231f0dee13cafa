"""What a model must beat: words that a query shares with a text, weighed by TF-IDF or BM25 over the texts that are searched."""

from collections.abc import Callable, Sequence

import numpy as np

from components.model.tasks.contrastive.retrieval import Floats

_WORD = r"(?u)\b\w+\b"


def tfidf(corpus: Sequence[str]) -> Callable[[Sequence[str]], Floats]:
    """Index `corpus`; queries are compared with it by the cosine of their TF-IDF vectors."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(token_pattern=_WORD, sublinear_tf=True)
    if not any(map(vectorizer.build_analyzer(), corpus)):
        return lambda queries: np.zeros((len(queries), len(corpus)))
    indexed = vectorizer.fit_transform(corpus)
    return lambda queries: np.asarray((vectorizer.transform(queries) @ indexed.T).toarray(), dtype=np.float64)


def bm25(corpus: Sequence[str]) -> Callable[[Sequence[str]], Floats]:
    """Index `corpus` (bm25s, the formula of Lucene with k1 1.5 and b 0.75)."""
    import bm25s  # type: ignore[import-untyped]

    retriever = bm25s.BM25()
    words = _words(corpus)
    if not any(words):
        return lambda queries: np.zeros((len(queries), len(corpus)))
    retriever.index(words, show_progress=False)

    def search(queries: Sequence[str]) -> Floats:
        nothing = np.zeros(len(corpus))
        return np.stack([np.asarray(retriever.get_scores(own), dtype=np.float64) if own else nothing for own in _words(queries)])

    return search


def _words(texts: Sequence[str]) -> list[list[str]]:
    import bm25s

    found: list[list[str]] = bm25s.tokenize(list(texts), token_pattern=_WORD, stopwords=None, return_ids=False, show_progress=False)
    return found
