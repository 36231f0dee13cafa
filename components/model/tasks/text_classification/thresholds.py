"""Fit decision thresholds that maximise F1 on the validation rows.

Thresholds per label maximise macro-F1: Lipton, Elkan & Naryanaswamy, "Optimal Thresholding of Classifiers to Maximize F1 Measure" (2014).
Rare labels would overfit (Yang, "A Study of Thresholding Strategies for Text Categorization", 2001); they share the threshold with the best
micro-F1 over all labels.
"""

import numpy as np
import numpy.typing as npt

from components.model.support.metrics import Floats

Bools = npt.NDArray[np.bool_]

DEFAULT = 0.5
MIN_ROWS = 5
"""Labels with fewer rows get the shared threshold."""


def fit_thresholds(probabilities: Floats, expected: Bools) -> list[float]:
    """Return one threshold per label from probabilities and expected labels, both (rows, labels)."""
    shared = best_threshold(probabilities.ravel(), expected.ravel())
    enough = expected.sum(axis=0) >= MIN_ROWS
    return [best_threshold(*column) if fitted else shared for *column, fitted in zip(probabilities.T, expected.T, enough, strict=True)]


def best_threshold(probabilities: Floats, expected: Bools) -> float:
    """Return the threshold with the highest F1, on ties the nearest to 0.5; 0.5 if no row has the label.

    Candidates are midpoints of neighbouring probabilities, rounded to four digits so that hardware differences do not change the model.
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
