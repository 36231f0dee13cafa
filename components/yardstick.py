"""What the test set of a task is measured by."""

import numpy as np
import numpy.typing as npt

from components import tasks
from components.artifacts.predictions import Predictions
from components.statistics import COMPARABLE, ClassYardstick, SumYardstick, Yardstick

Floats = npt.NDArray[np.float64]


def yardstick(task: tasks.Task, found: Predictions, min_class_units: int) -> Yardstick:
    """Return what the test set of `found` is measured by: classes from `min_class_units` test units on, or the task's own measures."""
    if task.classes:
        return ClassYardstick.of(found, min_class_units)
    return SumYardstick.of(found, task.measures, RowStatistics(task))


def decidable(task: tasks.Task) -> dict[str, tuple[float, float]]:
    """Return the metrics that gates may decide on, each with its bounds."""
    return dict.fromkeys(COMPARABLE, (0.0, 1.0)) if task.classes else {name: one.bounds for name, one in task.measures.items()}


class RowStatistics:
    """The row statistics of any predictions of a task; each pair of texts is counted once, however many metrics and parts ask for it."""

    def __init__(self, task: tasks.Task) -> None:
        self._task = task
        self._names: tuple[str, ...] = ()
        self._known: dict[tuple[str, str], Floats] = {}

    def __call__(self, found: Predictions) -> dict[str, Floats]:
        """Return all that the task's measures sum up, by name, each (rows,); what the model told itself included."""
        pairs = list(zip(found.expected.tolist(), found.predicted.tolist(), strict=True))
        if new := [pair for pair in dict.fromkeys(pairs) if pair not in self._known]:
            counted = self._task.statistics([expected for expected, _ in new], [predicted for _, predicted in new])
            self._names = tuple(counted)
            self._known |= dict(zip(new, np.array(list(counted.values()), dtype=np.float64).reshape(len(counted), len(new)).T, strict=True))
        table = np.array([self._known[pair] for pair in pairs], dtype=np.float64).reshape(len(pairs), len(self._names))
        return {**dict(zip(self._names, table.T, strict=True)), **found.measured}
