"""From which probability a label is answered, so that its F1 on the validation rows is the highest.

A threshold a label maximises macro-F1: Lipton, Elkan & Naryanaswamy, "Optimal Thresholding of Classifiers to Maximize F1 Measure" (2014).
Labels with few rows would be fitted to chance (Yang, "A Study of Thresholding Strategies for Text Categorization", 2001): they share one,
the best for micro-F1 over all labels. Numpy alone.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

DEFAULT = 0.5
FEW = 5
"""Rows below which a label gets the shared threshold."""


def fit_thresholds(probabilities: Floats, expected: Bools) -> list[float]:
    """Return the threshold of each label, from probabilities and what is expected, both (rows, labels)."""
    shared = best_threshold(probabilities.ravel(), expected.ravel())
    enough = expected.sum(axis=0) >= FEW
    return [best_threshold(*column) if own else shared for *column, own in zip(probabilities.T, expected.T, enough, strict=True)]


def best_threshold(probabilities: Floats, expected: Bools) -> float:
    """Return the threshold with the highest F1, of several the one nearest to 0.5; 0.5 where nothing is expected.

    Candidates lie midway between neighbouring probabilities; four digits, since another machine's last ones must not make another model.
    """
    if not expected.any():
        return DEFAULT
    order = np.argsort(-probabilities, kind="stable")
    ranked, hits = probabilities[order], np.cumsum(expected[order])
    below = np.append(ranked[1:], 0.0)
    cuts = np.flatnonzero(ranked > below)
    scores = 2 * hits[cuts] / (cuts + 1 + expected.sum())
    candidates = np.round((ranked[cuts] + below[cuts]) / 2, 4)
    best = candidates[scores >= scores.max() - 1e-12]
    return float(np.clip(best[np.abs(best - DEFAULT).argmin()], 1e-4, 1.0))
