"""Select the metrics of a task."""

from components.artifacts.predictions import Predictions
from components.core.hashing import digest_value
from components.model import tasks
from components.stats.metric_sets import AdditiveMetrics, MetricSet
from components.stats.scores import COMPARABLE, ClassificationMetrics
from components.stats.units import Floats


def metric_set(task: tasks.Task, predictions: Predictions, min_class_units: int) -> MetricSet:
    """Return the metrics for the test set of `predictions`: of classes (with at least `min_class_units` units), or the task's own."""
    if task.classes:
        return ClassificationMetrics.from_predictions(predictions, min_class_units)
    return AdditiveMetrics.from_predictions(predictions, task.test_metrics, RowStatistics(task))


def decidable_metrics(task: tasks.Task) -> dict[str, tuple[float, float]]:
    """Return the metrics that gates may decide on, each with its bounds."""
    return dict.fromkeys(COMPARABLE, (0.0, 1.0)) if task.classes else {name: metric.bounds for name, metric in task.test_metrics.items()}


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
