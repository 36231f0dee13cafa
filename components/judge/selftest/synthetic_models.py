"""Synthetic models of known quality, derived from an existing one, for the self-test.

Labels, rows and groups are numbered, because numbers sort faster than names.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from components.artifacts.predictions import Predictions
from components.gates.support.evidence import Evidence
from components.stats.units import Bools, Floats, Ints, Units

_SEED = 20261122


@dataclass(frozen=True)
class SyntheticModels:
    """`expected` and `answers` (rows,) are label indices below `classes`, -1 for other labels; `probabilities` is (rows, classes)."""

    ids: npt.NDArray[np.str_]
    expected: Ints
    answers: Ints
    probabilities: Floats
    units: Units
    classes: int

    @classmethod
    def from_predictions(cls, evidence: Evidence, reference: Predictions) -> "SyntheticModels":
        """Derive the models from the answers of `reference` on the test set of `evidence`."""
        truth = evidence.truth
        probabilities = np.zeros((len(truth.expected), len(truth.labels)))
        for column, label in enumerate(truth.labels):
            if label in reference.labels:
                probabilities[:, column] = reference.probabilities[:, reference.labels.index(label)]
        return cls(evidence.candidate.ids, truth.expected, truth.encode(reference.predicted), probabilities, truth.units, len(truth.labels))

    @cached_property
    def correct(self) -> Bools:
        """Rows that the reference answers correctly."""
        return np.asarray((self.answers == self.expected) & (self.expected >= 0))

    @cached_property
    def correctable(self) -> Bools:
        """Errors that a model with these labels could avoid."""
        return np.asarray(~self.correct & (self.expected >= 0))

    @cached_property
    def wrong(self) -> Ints:
        """A wrong answer for each row: the next label, or -1 if there is only one label."""
        return np.asarray((self.expected + 1) % self.classes if self.classes > 1 else np.full(len(self.expected), -1), dtype=np.int64)

    def flipped(self, count: int) -> Ints:
        """Return answers with `count` correct ones made wrong, spread evenly over groups and classes."""
        return self._with(self._spread(self.correct, count), self.wrong)

    def corrected(self, count: int) -> Ints:
        """Return answers with `count` wrong ones corrected, spread evenly over groups and classes."""
        return self._with(self._spread(self.correctable, count), self.expected)

    def shuffled(self) -> Ints:
        """Return the answers in random order."""
        return np.random.default_rng(_SEED).permutation(self.answers)

    def model(self, answers: Ints) -> Predictions:
        """Return a model with these answers: where they differ from the reference's, two probabilities are swapped."""
        rows = np.flatnonzero((answers != self.answers) & (answers >= 0) & (self.answers >= 0))
        probabilities = self.probabilities.copy()
        probabilities[rows, answers[rows]] = self.probabilities[rows, self.answers[rows]]
        probabilities[rows, self.answers[rows]] = self.probabilities[rows, answers[rows]]
        names = np.array([*map(str, range(self.classes)), "-1"])
        return Predictions(self.ids, self._groups, names[self.expected], names[answers], probabilities, tuple(names[:-1].tolist()))

    @cached_property
    def _groups(self) -> npt.NDArray[np.str_]:
        return self.units.index.astype(np.str_)

    def _with(self, rows: Ints, answers: Ints) -> Ints:
        changed = self.answers.copy()
        changed[rows] = answers[rows]
        return changed

    def _spread(self, among: Bools, count: int) -> Ints:
        """Return `count` of the rows `among` (or all), evenly spaced when sorted by group and class."""
        rows = np.lexsort((self.expected, self.units.index)) if self.units.grouped else np.argsort(self.expected, kind="stable")
        rows = rows[among[rows]]
        return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)]
