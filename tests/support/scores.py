"""The metrics of classification for labels without a model's predictions."""

from types import SimpleNamespace

import numpy as np

from components.artifacts.metrics import Estimate
from components.stats.scores import ClassificationMetrics


def score(metric: str, truth: ClassificationMetrics, predicted: np.ndarray, confidence: float = 0.95) -> Estimate:
    return truth.score(metric, SimpleNamespace(predicted=predicted), confidence)


def difference(metric: str, truth: ClassificationMetrics, predicted: np.ndarray, other: np.ndarray, confidence: float = 0.95) -> Estimate:
    return truth.difference(metric, SimpleNamespace(predicted=predicted), SimpleNamespace(predicted=other), confidence)


def below(metric: str, truth: ClassificationMetrics, predicted: np.ndarray, threshold: float) -> float:
    return truth.below(metric, SimpleNamespace(predicted=predicted), threshold)


def difference_below(metric: str, truth: ClassificationMetrics, predicted: np.ndarray, other: np.ndarray, threshold: float = 0.0) -> float:
    return truth.difference_below(metric, SimpleNamespace(predicted=predicted), SimpleNamespace(predicted=other), threshold)
