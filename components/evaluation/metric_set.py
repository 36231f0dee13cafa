"""What the test set of a task is measured by."""

import numpy as np
import numpy.typing as npt

from components.artifacts.predictions import Predictions
from components.core.hashing import digest_value
from components.model import tasks
from components.stats import COMPARABLE, AdditiveMetrics, ClassificationMetrics, MetricSet

Floats = npt.NDArray[np.float64]


def metric_set(task: tasks.Task, found: Predictions, min_class_units: int) -> MetricSet:
    """Return what the test set of `found` is measured by: classes from `min_class_units` test units on, or the task's own measures."""
    if task.classes:
        return ClassificationMetrics.from_predictions(found, min_class_units)
    return AdditiveMetrics.from_predictions(found, task.test_metrics, RowStatistics(task))


def decidable_metrics(task: tasks.Task) -> dict[str, tuple[float, float]]:
    """Return the metrics that gates may decide on, each with its bounds."""
    return dict.fromkeys(COMPARABLE, (0.0, 1.0)) if task.classes else {name: one.bounds for name, one in task.test_metrics.items()}


class RowStatistics:
    """The row statistics of any predictions of a task; the same answers are counted once, however many metrics ask for them.

    Answers are counted as a whole: some statistics, as ranks, rest on all rows.
    """

    def __init__(self, task: tasks.Task) -> None:
        self._task = task
        self._known: dict[tuple[str, ...], dict[str, Floats]] = {}

    def __call__(self, found: Predictions) -> dict[str, Floats]:
        """Return all that the task's measures sum up, by name, each (rows,); what the model told itself included."""
        texts = (found.expected.tolist(), found.predicted.tolist())
        key = tuple(digest_value(side) for side in texts)
        if key not in self._known:
            self._known[key] = dict(self._task.statistics(*texts))
        return {**self._known[key], **found.measured}
