"""The TF-IDF baselines: linear models whose regularisation and class weights are chosen by cross-validation on the training rows.

scikit-learn is imported inside the functions.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.model.support.cross_validation import Fold, Ints, choose, make_folds, out_of_fold
from components.model.support.metrics import Floats
from components.model.support.one_thread import on_one_thread

log = logging.getLogger(__name__)

Predict = Callable[[pd.DataFrame], Floats]
"""Maps rows to the predictions of a fitted model."""
Fitted = Callable[[Any], Floats]
"""Maps features to the predictions of a fitted model."""
Score = Callable[[Floats, Ints], float]
"""Maps predictions and the indexes of their training rows to a metric; higher is better."""

INVERSE_REGULARISATION = (10.0, 1.0, 100.0)
"""C of logistic regression; the first is used if cross-validation is impossible."""
REGULARISATION = (1.0, 0.1, 10.0)
"""alpha of ridge regression."""
Setting = TypeVar("Setting")

_MOST_ROWS = 5_000  # rows to fit on when settings are chosen; a fit on them takes seconds


@dataclass(frozen=True)
class TfIdf:
    """TF-IDF of unigrams and bigrams; `train` are the features of the training rows, a sparse matrix (rows, terms)."""

    vectorizer: Any
    pair: bool
    train: Any

    @classmethod
    def fit(cls, train: pd.DataFrame, pair: bool) -> "TfIdf | None":
        """Fit the terms to the training rows; return None if their texts have no words."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        texts = [text for column in _columns(pair) for text in train[column]]
        if not any(map(vectorizer.build_analyzer(), texts)):
            return None
        vectorizer.fit(texts)
        log.info("TF-IDF baseline: %d terms", len(vectorizer.vocabulary_))
        return cls(vectorizer, pair, _features(vectorizer, train, pair))

    def features(self, rows: pd.DataFrame) -> Any:
        """Return the features of any rows."""
        return _features(self.vectorizer, rows, self.pair)


def _columns(pair: bool) -> tuple[str, ...]:
    return ("text_a", "text_b") if pair else ("text",)


def _features(vectorizer: Any, rows: pd.DataFrame, pair: bool) -> Any:
    """Return the features of texts; those of a pair are a, b, |a - b|, a * b and the cosine."""
    from scipy.sparse import csr_matrix, hstack

    a, *others = (vectorizer.transform(rows[column]) for column in _columns(pair))
    if not others:
        return a
    b = others[0]
    product = a.multiply(b)
    return hstack([a, b, abs(a - b), product, csr_matrix(product.sum(axis=1))]).tocsr()


def classifier(tfidf: TfIdf, targets: Ints, classes: int, groups: Sequence[str], score: Score) -> Predict:
    """Return a function to probabilities (rows, classes): logistic regression on the class indexes `targets`.

    C, and whether classes have balanced weights, are chosen for `score` of the probabilities.
    """
    from sklearn.linear_model import LogisticRegression

    def fit(setting: tuple[str, float], rows: Ints) -> Fitted:
        (weights, strength), known = setting, np.unique(targets[rows])
        fitted = LogisticRegression(C=strength, class_weight=None if weights == "none" else weights, max_iter=10_000)
        if len(known) > 1:
            fitted.fit(tfidf.train[rows], targets[rows])  # lbfgs is deterministic

        def probabilities(inputs: Any) -> Floats:
            answers = np.zeros((inputs.shape[0], classes))
            answers[:, known] = fitted.predict_proba(inputs) if len(known) > 1 else 1.0
            return answers

        return probabilities

    folds = make_folds(groups, [str(target) for target in targets])
    return _tuned(tfidf, list(product(("none", "balanced"), INVERSE_REGULARISATION)), folds, fit, score)[0]


def regressor(tfidf: TfIdf, numbers: Floats, folds: Sequence[Fold], score: Score, weights: Mapping[str, Floats | None]) -> Predict:
    """Return a function to numbers (rows,): ridge regression on the training `numbers`.

    alpha, and one of the named row `weights`, are chosen for `score` of the numbers.
    """
    from sklearn.linear_model import Ridge

    def fit(setting: tuple[str, float], rows: Ints) -> Fitted:
        weight = weights[setting[0]]
        ridge = Ridge(alpha=setting[1], solver="sparse_cg")
        predict: Fitted = ridge.fit(tfidf.train[rows], numbers[rows], sample_weight=None if weight is None else weight[rows]).predict
        return predict

    return _tuned(tfidf, list(product(weights, REGULARISATION)), folds, fit, score)[0]


def labeller(tfidf: TfIdf, expected: npt.NDArray[np.bool_], folds: Sequence[Fold], score: Score) -> tuple[Predict, Floats]:
    """Return a function to label probabilities (rows, labels): one logistic regression per label of `expected` (rows, labels).

    C is chosen for `score`. The second result are the probabilities of the training rows out of fold, to which thresholds can be
    fitted, so that class weights are not needed; without folds it is empty.
    """
    from sklearn.linear_model import LogisticRegression

    def fit(strength: float, rows: Ints) -> Fitted:
        fitted: list[Fitted] = []
        for targets in expected[rows].T:
            if targets.any() and not targets.all():
                model = LogisticRegression(C=strength, solver="liblinear", max_iter=1_000)
                fitted.append(model.fit(tfidf.train[rows], targets).predict_proba)
            else:
                fitted.append(partial(_constant, float(targets.all())))
        return lambda inputs: np.stack([probabilities(inputs)[:, 1] for probabilities in fitted], axis=1)

    predict, chosen = _tuned(tfidf, INVERSE_REGULARISATION, folds, fit, score)
    if not folds:
        return predict, np.zeros((0, expected.shape[1]))
    return predict, on_one_thread(lambda: out_of_fold(folds, lambda kept, held: fit(chosen, kept)(tfidf.train[held])))[0]


def _constant(probability: float, inputs: Any) -> Floats:
    return np.full((inputs.shape[0], 2), probability)


def _tuned(
    tfidf: TfIdf, settings: Sequence[Setting], folds: Sequence[Fold], fit: Callable[[Setting, Ints], Fitted], score: Score
) -> tuple[Predict, Setting]:
    """Return the predictions of the setting with the best score, fitted to all training rows, and the setting.

    One fold of many rows is enough to choose it.
    """
    if tfidf.train.shape[0] > _MOST_ROWS:
        folds = [(kept[:: 1 + len(kept) // _MOST_ROWS], held) for kept, held in folds[:1]]
    chosen = on_one_thread(lambda: choose(settings, folds, lambda setting, kept, held: fit(setting, kept)(tfidf.train[held]), score))
    log.info("TF-IDF baseline: %s is the best of %d settings", chosen, len(settings))
    predict = on_one_thread(lambda: fit(chosen, np.arange(tfidf.train.shape[0])))
    return lambda rows: predict(tfidf.features(rows)), chosen
