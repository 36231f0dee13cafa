"""The expected classes of a test set, and the row statistics of class metrics."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from components.artifacts.predictions import Predictions
from components.stats.units import Bools, Floats, Ints, Units


@dataclass(frozen=True)
class TrueClasses:
    """`expected` (rows,) as indexes in `labels`, the independent `units`, and how many of them a class needs in macro-F1."""

    expected: Ints
    labels: tuple[str, ...]
    units: Units
    min_class_units: int

    @classmethod
    def from_predictions(cls, predictions: Predictions, min_class_units: int) -> "TrueClasses":
        """Build the classes from the predictions of a model; `predictions.labels` becomes the list of classes."""
        expected = encode(predictions.expected, predictions.labels)
        return cls(expected, predictions.labels, Units.from_groups(predictions.groups), min_class_units)

    def encode(self, labels: npt.NDArray[np.str_]) -> Ints:
        """Return the indexes of `labels` (rows,) in the list of classes, -1 for other labels."""
        return encode(labels, self.labels)

    @cached_property
    def class_units(self) -> Floats:
        """Rows of each class, or groups that contain it if rows are grouped, shape (classes,)."""
        known = self.expected >= 0
        pairs = np.unique(self.units.index[known] * len(self.labels) + self.expected[known])
        return np.bincount(pairs % len(self.labels), minlength=len(self.labels)).astype(np.float64)

    @property
    def eligible(self) -> Bools:
        """The classes with enough units for macro-F1, shape (classes,)."""
        return np.asarray(self.class_units >= self.min_class_units, dtype=np.bool_)

    @property
    def averaged(self) -> Bools:
        """The eligible classes, or all classes if none is, so that there is a number to show."""
        return self.eligible if self.eligible.any() else np.ones(len(self.labels), dtype=np.bool_)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The labels that macro-F1 ignores."""
        return tuple(label for label, eligible in zip(self.labels, self.eligible, strict=True) if not eligible)

    def statistic(self, name: str, predicted: npt.NDArray[np.str_]) -> Floats:
        """Return a row statistic of the answers `predicted` (rows,).

        `right` and `rows` are (rows,). `class_hits`, `class_predicted` and `class_expected` are (rows, classes), and 1 for the class of the
        row; `averaged_…` are the same for the classes that macro-F1 averages.
        """
        answers = self.encode(predicted)
        hits = np.where(answers == self.expected, answers, -1)
        if name in ("right", "rows"):
            return (hits >= 0).astype(np.float64) if name == "right" else np.ones(len(hits))
        over, _, kind = name.partition("_")
        chosen = {"class": np.ones(len(self.labels), dtype=np.bool_), "averaged": self.averaged}[over]
        indexes = {"hits": hits, "predicted": answers, "expected": self.expected}[kind]
        return np.asarray(indexes[:, None] == np.flatnonzero(chosen), dtype=np.float64)


def encode(values: npt.NDArray[np.str_], labels: tuple[str, ...]) -> Ints:
    """Return the index of each value in `labels`, -1 for other values."""
    position = {label: number for number, label in enumerate(labels)}
    names, index = np.unique(values, return_inverse=True)
    return np.array([position.get(str(name), -1) for name in names], dtype=np.int64)[index.reshape(-1)]
