"""Calibration of probabilities: Brier score, calibration error, reliability diagram."""

import numpy as np

from components.artifacts.metrics import CalibrationBin, Estimate
from components.stats.means import mean
from components.stats.units import Bools, Floats, Ints, Units

BINS = 15


def brier(probabilities: Floats, expected: Ints, units: Units, confidence: float = 0.95) -> Estimate:
    """Return the mean squared distance of `probabilities` (rows, labels) from the truth, between 0 and 2 (Brier 1950).

    An `expected` of -1 is a label that the model lacks: all its probabilities then count as errors, and a missing 1 is added.
    """
    return mean(brier_terms(probabilities, expected), units, (0.0, 2.0), confidence)


def brier_terms(probabilities: Floats, expected: Ints) -> Floats:
    """Return the Brier score of each row (rows,)."""
    known = expected >= 0
    truth = np.zeros_like(probabilities)
    truth[np.flatnonzero(known), expected[known]] = 1.0
    terms = np.sum((probabilities - truth) ** 2, axis=1) + np.where(known, 0.0, 1.0)
    return np.asarray(np.clip(terms, 0.0, 2.0), dtype=np.float64)


def reliability(confidences: Floats, right: Bools) -> tuple[CalibrationBin, ...]:
    """Return the non-empty bins of equal width: mean confidence of the answer, share of right answers, rows."""
    rows, confidence, accuracy = _binned(confidences, right)
    return tuple(
        CalibrationBin(confidence=float(p), accuracy=float(a), rows=int(n)) for n, p, a in zip(rows, confidence, accuracy, strict=True)
    )


def calibration_error(confidences: Floats, right: Bools) -> tuple[float, float]:
    """Return the expected calibration error (ECE), and a bias-corrected calibration error.

    The ECE is the mean absolute gap between confidence and accuracy over the bins (Naeini et al. 2015); it is positive even
    for a perfect model. The corrected error is the root of the mean squared gap minus the sampling variance of each bin,
    a (1 - a) / (n - 1): Broecker (2012), Climate Dynamics 39:655; Ferro and Fricker (2012), QJRMS 138:1954; Kumar et
    al. (2019), arXiv 1909.10155. A bin with one row has no variance estimate and is left out.
    """
    rows, confidence, accuracy = _binned(confidences, right)
    gap, weight = confidence - accuracy, rows / rows.sum()
    several = rows > 1
    noise = accuracy * (1 - accuracy) / np.maximum(rows - 1, 1)
    squared = float(np.sum((weight * (gap**2 - noise))[several]))
    return float(np.sum(weight * np.abs(gap))), float(np.sqrt(max(squared, 0.0)))


def _binned(confidences: Floats, right: Bools) -> tuple[Floats, Floats, Floats]:
    """Return rows, mean confidence and accuracy of each non-empty bin."""
    bins = np.clip((confidences * BINS).astype(np.int64), 0, BINS - 1)
    rows = np.bincount(bins, minlength=BINS).astype(np.float64)
    filled = rows > 0
    confidence = np.bincount(bins, weights=confidences, minlength=BINS)[filled] / rows[filled]
    accuracy = np.bincount(bins, weights=right.astype(np.float64), minlength=BINS)[filled] / rows[filled]
    return rows[filled], confidence, accuracy
