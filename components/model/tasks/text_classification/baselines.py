"""The TF-IDF baselines with linear models. scikit-learn is imported inside the functions."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.model.support.metrics import Floats
from components.model.support.one_thread import on_one_thread

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Features:
    """TF-IDF of unigrams and bigrams of the training and test rows: sparse matrices (rows, terms)."""

    train: Any
    test: Any


def features(train: pd.DataFrame, test: pd.DataFrame, pair: bool) -> Features | None:
    """Return the features of both tables; None if the training texts have no words.

    The features of a pair are a, b, |a - b|, a * b and the cosine.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    columns = ["text_a", "text_b"] if pair else ["text"]
    texts = [text for column in columns for text in train[column]]
    if not any(map(vectorizer.build_analyzer(), texts)):
        return None
    matrices = vectorizer.fit_transform(texts)
    log.info("TF-IDF baseline: %d terms", len(vectorizer.vocabulary_))
    if not pair:
        return Features(matrices, vectorizer.transform(test["text"]))
    parts = [matrices[: len(train)], matrices[len(train) :]], [vectorizer.transform(test[column]) for column in columns]
    return Features(*(_pair_features(*part) for part in parts))


def _pair_features(a: Any, b: Any) -> Any:
    from scipy.sparse import csr_matrix, hstack

    product = a.multiply(b)
    return hstack([a, b, abs(a - b), product, csr_matrix(product.sum(axis=1))]).tocsr()


def classified(features: Features, labels: Sequence[str], classes: Sequence[str]) -> Floats | None:
    """Return probabilities of `classes` from logistic regression on the training `labels`; None if there is only one label."""
    from sklearn.linear_model import LogisticRegression

    if len(set(labels)) < 2:
        return None
    # lbfgs is deterministic; on the shipped example it needs about 100 iterations.
    classifier = LogisticRegression(C=10, max_iter=10_000)
    probabilities = on_one_thread(lambda: classifier.fit(features.train, np.array(labels, dtype=object)).predict_proba(features.test))
    log.info("TF-IDF baseline: %d iterations", int(classifier.n_iter_.max()))
    answers = np.zeros((features.test.shape[0], len(classes)))
    answers[:, [list(classes).index(label) for label in classifier.classes_]] = probabilities
    return answers


def regressed(features: Features, numbers: Floats) -> Floats:
    """Return predictions for the test rows from ridge regression (alpha 1) on the training `numbers`."""
    from sklearn.linear_model import Ridge

    return np.asarray(on_one_thread(lambda: Ridge(alpha=1.0, solver="sparse_cg").fit(features.train, numbers).predict(features.test)))


def labelled(features: Features, expected: npt.NDArray[np.bool_], folds: int = 3) -> tuple[Floats, Floats]:
    """Return label probabilities (rows, labels) of the training and the test rows, from one logistic regression per label.

    The training rows are predicted out of fold, so that thresholds can be fitted to them.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold

    def predict(rows: Any, inputs: Any, label: int) -> Floats:
        targets = expected[rows, label]
        if targets.all() or not targets.any():
            return np.full(inputs.shape[0], float(targets.all()))
        fitted = LogisticRegression(C=10, solver="liblinear", max_iter=1_000).fit(features.train[rows], targets)
        return np.asarray(fitted.predict_proba(inputs)[:, 1])

    def compute() -> tuple[Floats, Floats]:
        out_of_fold, rows = np.zeros(expected.shape), np.arange(len(expected))
        for kept, held in KFold(min(folds, len(rows)), shuffle=True, random_state=0).split(rows) if len(rows) > 1 else ():
            out_of_fold[held] = np.stack([predict(kept, features.train[held], label) for label in range(expected.shape[1])], axis=1)
        return out_of_fold, np.stack([predict(rows, features.test, label) for label in range(expected.shape[1])], axis=1)

    train, test = on_one_thread(compute)
    return train, test
