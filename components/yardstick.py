"""What the test set of a task is measured by."""

from functools import partial

from components import tasks
from components.artifacts.predictions import Predictions
from components.statistics import COMPARABLE, ClassYardstick, SumYardstick, Yardstick


def yardstick(task: tasks.Task, found: Predictions, min_class_units: int) -> Yardstick:
    """Return what the test set of `found` is measured by: classes from `min_class_units` test units on, or the task's own measures."""
    if task.classes:
        return ClassYardstick.of(found, min_class_units)
    return SumYardstick.of(found, task.measures, partial(tasks.statistics_of, task))


def decidable(task: tasks.Task) -> dict[str, tuple[float, float]]:
    """Return the metrics that gates may decide on, each with its bounds."""
    return dict.fromkeys(COMPARABLE, (0.0, 1.0)) if task.classes else {name: one.bounds for name, one in task.measures.items()}
