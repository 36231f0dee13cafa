"""Select the metrics of a task."""

from collections.abc import Mapping

from components.artifacts.predictions import Predictions
from components.core.hashing import digest_value
from components.model import tasks
from components.model.support.metrics import Metric
from components.stats.metric_sets import MetricSet
from components.stats.scores import CLASSIFICATION
from components.stats.units import Floats


def metrics_of(task: tasks.Task) -> Mapping[str, Metric]:
    """Return the metrics of a task on the test split: those of classification first if it has classes, then its own."""
    if not task.classes:
        return task.test_metrics
    return {**CLASSIFICATION, **{name: metric for name, metric in task.test_metrics.items() if name not in CLASSIFICATION}}


def metric_set(task: tasks.Task, predictions: Predictions, min_class_units: int) -> MetricSet:
    """Return the metrics for the test set of `predictions`; a class needs `min_class_units` units to count in macro-F1."""
    return MetricSet.from_predictions(predictions, metrics_of(task), RowStatistics(task), min_class_units if task.classes else None)


def decidable_metrics(task: tasks.Task) -> dict[str, tuple[float, float]]:
    """Return the metrics that gates may decide on, each with its bounds."""
    return {name: metric.bounds for name, metric in metrics_of(task).items() if metric.decidable}


class RowStatistics:
    """Computes a task's row statistics of predictions, cached by their answers.

    Takes all answers at once, because some statistics, such as ranks, depend on all rows.
    """

    def __init__(self, task: tasks.Task) -> None:
        self._task = task
        self._cache: dict[tuple[str, ...], dict[str, Floats]] = {}

    def __call__(self, predictions: Predictions) -> dict[str, Floats]:
        """Return the statistics by name, each (rows,), including those that the model itself measured."""
        texts = (predictions.expected.tolist(), predictions.predicted.tolist())
        key = tuple(digest_value(side) for side in texts)
        if key not in self._cache:
            self._cache[key] = dict(self._task.statistics(*texts))
        return {**self._cache[key], **predictions.measured}
