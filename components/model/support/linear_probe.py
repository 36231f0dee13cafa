"""Linear probes: an output layer that is fitted on frozen features, with regularisation and class weights from cross-validation.

The features are standardised, which is folded into weight and bias. The same features give the same bits: one thread, fixed seeds.
scikit-learn and scipy are imported inside the functions.
"""

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from components.model.support.cross_validation import Fold, make_folds
from components.model.support.frozen_features import FrozenFeatures
from components.model.support.metrics import Floats
from components.model.support.one_thread import on_one_thread
from components.model.support.output_heads import output_layer

log = logging.getLogger(__name__)

STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Inverse regularisation: the weight of the sum of losses against half the squared weights, as C in scikit-learn."""

_PATIENCE = 2  # strengths in a row with a lower metric
_FOLDS, _ROWS_OF_FEWER_FOLDS, _FEWER_FOLDS = 5, 4000, 3
_MOST_COMPARED = 100_000_000  # vectors x width x outputs of a cross-validation: about half a minute
_MOST_FITTED = 400_000_000
_UNCOMPARED = 0.01  # the strength if there are too few rows for folds
_FEWEST_OUTPUTS = 4  # fewer outputs do not allow more vectors: these are copied for each fold
_LEAST_SPREAD = 1e-6  # of the median standard deviation of the features
_ITERATIONS = 300

Solution = tuple[Floats, Floats]
"""Weight (outputs, width) and bias (outputs,) for standardised features."""

Solver = Callable[[Floats, npt.NDArray[Any], str, Sequence[float], bool], Iterator[Solution]]
"""Takes standardised features, targets, a class weighting, strengths in rising order, and whether to fit a bias; one solution each."""

Cases = Callable[[npt.NDArray[Any], str], tuple[npt.NDArray[Any], Floats]]
"""Takes targets and a class weighting; returns for each output the truth, 0 or 1, and the weight of each row, both (n, outputs)."""

Evaluate = Callable[[FrozenFeatures, Floats], tuple[npt.NDArray[Any], npt.NDArray[Any], float]]
"""Takes features and their logits (n, outputs); returns outputs and expected values as `Task.validate` takes them, and the metric."""


@dataclass(frozen=True)
class LinearHead:
    """An output layer: `weight` (outputs, width), `bias` (outputs,), and in `description` how it was fitted.

    `outputs` and `expected`, as `Task.validate` takes them, and the metric `value` are out of fold: each row is answered by a head that
    was not fitted on its fold. They are empty and NaN if there are too few rows for two folds.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]
    description: str
    outputs: npt.NDArray[Any]
    expected: npt.NDArray[Any]
    value: float

    def logits(self, vectors: npt.NDArray[np.float32]) -> Floats:
        """Return the logits of `vectors`, (n, outputs)."""
        return np.asarray(vectors.astype(np.float64) @ self.weight.T.astype(np.float64) + self.bias)

    def apply(self, model: Any) -> None:
        """Set the output layer of `model`."""
        import torch

        layer = output_layer(model, len(self.weight))[1]
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(self.weight))
            if layer.bias is not None:
                layer.bias.copy_(torch.from_numpy(self.bias))


def fit_head(features: FrozenFeatures, solver: Solver, weightings: Sequence[str], evaluate: Evaluate, strata: Any = None) -> LinearHead:
    """Return the head with the strength and the class weighting whose out-of-fold metric is best; on ties the stronger regularisation.

    `strata` (n,) are the classes to stratify the folds by. Groups stay together. Many features are sampled, by group: fewer for the
    comparison than for the head.
    """
    compared = _sample(features, _MOST_COMPARED)
    sample, fitted = features.take(compared), features.take(_sample(features, _MOST_FITTED))
    folds = _folds(sample, None if strata is None else strata[compared])
    if len(sample.vectors) < len(features.vectors):
        text = "linear probe: settings compared on %d of %d vectors, output layer fitted on %d"
        log.info(text, len(sample.vectors), len(features.vectors), len(fitted.vectors))
    return on_one_thread(lambda: _best(sample, fitted, solver, weightings, evaluate, folds))


def _best(
    features: FrozenFeatures,
    fitted: FrozenFeatures,
    solver: Solver,
    weightings: Sequence[str],
    evaluate: Evaluate,
    folds: list[Fold],
) -> LinearHead:
    """Return the head on the features `fitted` with the settings that are best in the `folds` of `features`."""
    best = (-math.inf, _UNCOMPARED, weightings[0], np.zeros(0), np.zeros(0))
    for weighting in weightings if folds else ():
        worse, own = 0, -math.inf
        # The best strengths of two weightings are close to each other.
        strengths = STRENGTHS[max(0, STRENGTHS.index(best[1]) - 2) if best[0] > -math.inf else 0 :]
        for strength, logits in zip(strengths, _out_of_fold(features, solver, weighting, strengths, folds), strict=True):
            outputs, expected, value = evaluate(features, logits)
            if value > best[0]:
                best = (value, strength, weighting, outputs, expected)
            worse, own = worse + 1 if value < own else 0, max(value, own)
            if worse >= _PATIENCE:
                break
    value, strength, weighting, outputs, expected = best
    weight, bias = next(_solutions(fitted, solver, weighting, [strength]))
    described = f"linear probe on {len(fitted.vectors):,} vectors, C {strength:g}, class weights {weighting}"
    described += f", {len(folds)} folds: {value:.4f}" if folds else ", too few rows for cross-validation"
    single = weight.astype(np.float32), bias.astype(np.float32)
    return LinearHead(*single, described, outputs, expected, value if folds else math.nan)


def _out_of_fold(
    features: FrozenFeatures, solver: Solver, weighting: str, strengths: Sequence[float], folds: list[Fold]
) -> Iterator[Floats]:
    """Yield for each strength the logits of every row from the head of the other folds."""
    paths = [_solutions(features.take(train), solver, weighting, strengths) for train, _ in folds]
    for heads in zip(*paths, strict=True):
        logits = np.zeros((len(features.vectors), len(heads[0][1])))
        for (weight, bias), (_, held) in zip(heads, folds, strict=True):
            logits[held] = features.vectors[held] @ weight.T + bias
        yield logits


def _solutions(features: FrozenFeatures, solver: Solver, weighting: str, strengths: Sequence[float]) -> Iterator[Solution]:
    """Yield the solution of each strength for the features as they are, not standardised."""
    vectors = features.vectors.astype(np.float64)
    centre = vectors.mean(axis=0) if features.bias else np.zeros(vectors.shape[1])
    spread = np.sqrt(np.square(vectors - centre).mean(axis=0))
    # A constant feature gets the weight 0. So does one that hardly varies beside the others, as in a dead unit of the base model: its
    # weight would be so large that the gradient of the layers below overflows.
    spread[(spread <= 1e-6 * np.abs(vectors).max(axis=0)) | (spread <= _LEAST_SPREAD * np.median(spread))] = np.inf
    for weight, bias in solver((vectors - centre) / spread, features.targets, weighting, strengths, features.bias):
        weight = weight / spread
        yield weight, bias - weight @ centre


def weightings(given: Sequence[float] | None) -> tuple[str, ...]:
    """Return the class weightings to try: the `given` one, or else none and balanced."""
    return ("none", "balanced") if given is None else ("given",)


def multinomial(labels: int, given: Sequence[float] | None = None) -> Solver:
    """Return the solver of multinomial logistic regression for targets from 0 to `labels` - 1.

    The class weighting is `none`, `balanced`, or `given`: one weight per label. A label without rows is never predicted.
    """
    from sklearn.linear_model import LogisticRegression

    def solve(vectors: Floats, targets: npt.NDArray[Any], weighting: str, strengths: Sequence[float], bias: bool) -> Iterator[Solution]:
        counts = np.bincount(targets, minlength=labels)
        present = np.flatnonzero(counts)
        absent = -math.log(2 * max(1, len(targets))) if bias else 0.0
        weights = np.asarray(given)[targets] if weighting == "given" else None
        balanced = "balanced" if weighting == "balanced" else None
        model = LogisticRegression(class_weight=balanced, fit_intercept=bias, warm_start=True, max_iter=_ITERATIONS)
        for strength in strengths:
            weight, offset = np.zeros((labels, vectors.shape[1])), np.full(labels, absent)
            offset[present] = 0.0
            if len(present) > 1:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # convergence: cross-validation judges the result
                    model.set_params(C=strength).fit(vectors, targets, sample_weight=weights)
                halves = [[-0.5], [0.5]] if len(present) == 2 else None
                weight[present] = np.multiply(halves, model.coef_) if halves else model.coef_
                offset[present] = np.multiply(halves, model.intercept_).ravel() if halves else model.intercept_
                offset[counts == 0] += offset[present].min()
            yield weight, offset

    return solve


def logistic(cases: Cases) -> Solver:
    """Return the solver of independent logistic regressions, one per output, of the `cases` of targets and a class weighting.

    One problem for all outputs, because a product with a matrix costs less than one with each of its columns.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    def solve(vectors: Floats, targets: npt.NDArray[Any], weighting: str, strengths: Sequence[float], bias: bool) -> Iterator[Solution]:
        truth, weights = cases(targets, weighting)
        inputs = np.hstack([vectors, np.full((len(vectors), 1), float(bias))])
        shape, rows = (inputs.shape[1], truth.shape[1]), max(1, len(inputs))
        penalised = np.arange(shape[0])[:, None] < vectors.shape[1]

        def loss(flat: Floats, strength: float) -> tuple[float, Floats]:
            matrix = flat.reshape(shape)
            logits, kept = inputs @ matrix, matrix * penalised
            total = (weights * (np.logaddexp(0, logits) - truth * logits)).sum() + np.square(kept).sum() / (2 * strength)
            gradient = inputs.T @ (weights * (expit(logits) - truth)) + kept / strength
            return total / rows, gradient.ravel() / rows

        start = np.zeros(shape[0] * shape[1])
        for strength in strengths:
            start = minimize(loss, start, (strength,), "L-BFGS-B", jac=True, options={"maxiter": _ITERATIONS, "gtol": 1e-4}).x
            matrix = start.reshape(shape)
            yield matrix[:-1].T, matrix[-1] * bias

    return solve


def ridge(vectors: Floats, targets: npt.NDArray[Any], weighting: str, strengths: Sequence[float], bias: bool) -> Iterator[Solution]:
    """Yield the solutions of ridge regression of the targets (n,): one output."""
    from sklearn.linear_model import Ridge

    for strength in strengths:
        model = Ridge(alpha=1 / strength, fit_intercept=bias, solver="cholesky").fit(vectors, targets.astype(np.float64))
        yield model.coef_.reshape(1, -1), np.atleast_1d(model.intercept_)


def _sample(features: FrozenFeatures, values: int) -> npt.NDArray[np.int64]:
    """Return the indices of all vectors, or of groups in a fixed random order, with at most `values` values x outputs."""
    outputs = int(features.targets.max(initial=0)) + 1 if features.targets.ndim == 1 else features.targets.shape[1]
    most = values // max(1, features.vectors.shape[1] * max(outputs, _FEWEST_OUTPUTS))
    if len(features.vectors) <= most:
        return np.arange(len(features.vectors))
    groups, members = np.unique(features.groups, return_inverse=True)
    rank = np.random.default_rng(0).permutation(len(groups))[members]
    order = np.argsort(rank, kind="stable")
    return np.sort(order[:most])


def _folds(features: FrozenFeatures, strata: Any) -> list[Fold]:
    """Return the folds as indices of training and held-out vectors; none if there are too few groups, or no class has two rows."""
    rows = len(features.vectors)
    if strata is not None and len(np.unique(strata)) == rows:
        return []
    return make_folds(features.groups, strata, count=_FOLDS if rows < _ROWS_OF_FEWER_FOLDS else _FEWER_FOLDS)
