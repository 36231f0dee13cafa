"""TF-IDF with linear models: what a fine-tuned model must beat. scikit-learn is imported inside."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Features:
    """TF-IDF over words and pairs of words of the training and the test rows: sparse matrices (rows, terms)."""

    train: Any
    test: Any


def features(train: pd.DataFrame, test: pd.DataFrame, pair: bool) -> Features | None:
    """Return the features of both tables; None where the training texts have no words.

    Of a pair, the features are those of each text, and of what they share and do not: |a - b| and a · b.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    columns = ["text_a", "text_b"] if pair else ["text"]
    learnt = [text for column in columns for text in train[column]]
    if not any(map(vectorizer.build_analyzer(), learnt)):
        return None
    matrices = vectorizer.fit_transform(learnt)
    log.info("TF-IDF baseline: %d terms", len(vectorizer.vocabulary_))
    if not pair:
        return Features(matrices, vectorizer.transform(test["text"]))
    parts = [matrices[: len(train)], matrices[len(train) :]], [vectorizer.transform(test[column]) for column in columns]
    return Features(*(_compared(*both) for both in parts))


def _compared(one: Any, other: Any) -> Any:
    from scipy.sparse import csr_matrix, hstack

    shared = one.multiply(other)
    return hstack([one, other, abs(one - other), shared, csr_matrix(shared.sum(axis=1))]).tocsr()


def classified(found: Features, labels: Sequence[str], classes: Sequence[str]) -> Floats | None:
    """Return the probabilities of `classes` by logistic regression on the training `labels`; None where there is one label only."""
    from sklearn.linear_model import LogisticRegression

    if len(set(labels)) < 2:
        return None
    # lbfgs starts at zero and draws nothing; on the shipped example it needs about 100 iterations.
    classifier = LogisticRegression(C=10, max_iter=10_000)
    known = on_one_thread(lambda: classifier.fit(found.train, np.array(labels, dtype=object)).predict_proba(found.test))
    log.info("TF-IDF baseline: %d iterations", int(classifier.n_iter_.max()))
    answers = np.zeros((found.test.shape[0], len(classes)))
    answers[:, [list(classes).index(label) for label in classifier.classes_]] = known
    return answers


def regressed(found: Features, numbers: Floats) -> Floats:
    """Return the numbers that ridge regression (alpha 1) on the training `numbers` gives for the test rows."""
    from sklearn.linear_model import Ridge

    return np.asarray(on_one_thread(lambda: Ridge(alpha=1.0, solver="sparse_cg").fit(found.train, numbers).predict(found.test)))


def on_one_thread(compute: Callable[[], Any]) -> Any:
    """Return what `compute` returns; another count gives other last digits, and on two busy cores it took four times as long."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1):
        return compute()


def labelled(found: Features, expected: npt.NDArray[np.bool_], folds: int = 3) -> tuple[Floats, Floats]:
    """Return the probabilities of each label (rows, labels), by a logistic regression each, of the training and of the test rows.

    Those of the training rows come from models that did not see them, so that thresholds can be fitted to them.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold

    def predict(rows: Any, of: Any, label: int) -> Floats:
        known = expected[rows, label]
        if known.all() or not known.any():
            return np.full(of.shape[0], float(known.all()))
        fitted = LogisticRegression(C=10, solver="liblinear", max_iter=1_000).fit(found.train[rows], known)
        return np.asarray(fitted.predict_proba(of)[:, 1])

    def compute() -> tuple[Floats, Floats]:
        apart, rows = np.zeros(expected.shape), np.arange(len(expected))
        for learnt, held in KFold(min(folds, len(rows)), shuffle=True, random_state=0).split(rows) if len(rows) > 1 else ():
            apart[held] = np.stack([predict(learnt, found.train[held], label) for label in range(expected.shape[1])], axis=1)
        return apart, np.stack([predict(rows, found.test, label) for label in range(expected.shape[1])], axis=1)

    one, other = on_one_thread(compute)
    return one, other
