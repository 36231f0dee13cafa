"""The metrics of classification for labels without a model's predictions."""

from types import SimpleNamespace

import numpy as np

from components.artifacts.metrics import Estimate
from components.stats.metric_sets import MetricSet


def score(metric: str, measured: MetricSet, predicted: np.ndarray, confidence: float = 0.95) -> Estimate:
    return measured.score(metric, SimpleNamespace(predicted=predicted), confidence)


def difference(metric: str, measured: MetricSet, predicted: np.ndarray, other: np.ndarray, confidence: float = 0.95) -> Estimate:
    return measured.difference(metric, SimpleNamespace(predicted=predicted), SimpleNamespace(predicted=other), confidence)


def below(metric: str, measured: MetricSet, predicted: np.ndarray, threshold: float) -> float:
    return measured.below(metric, SimpleNamespace(predicted=predicted), threshold)


def difference_below(metric: str, measured: MetricSet, predicted: np.ndarray, other: np.ndarray, threshold: float = 0.0) -> float:
    return measured.difference_below(metric, SimpleNamespace(predicted=predicted), SimpleNamespace(predicted=other), threshold)
