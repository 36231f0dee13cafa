"""Models whose truth is known, made from one that exists: what the self-test asks the gates about.

Labels are numbered, and rows and groups too: it is the gates that are tried here, and numbers sort faster than names.
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
    """`expected` and `answers` (rows,) are places in the list of `classes` labels, -1 outside of it; `probabilities` is (rows, classes)."""

    ids: npt.NDArray[np.str_]
    expected: Ints
    answers: Ints
    probabilities: Floats
    units: Units
    classes: int

    @classmethod
    def of(cls, evidence: Evidence, reference: Predictions) -> "SyntheticModels":
        """Take the answers of `reference` on the test set of `evidence`."""
        truth = evidence.truth
        probabilities = np.zeros((len(truth.expected), len(truth.labels)))
        for place, label in enumerate(truth.labels):
            if label in reference.labels:
                probabilities[:, place] = reference.probabilities[:, reference.labels.index(label)]
        return cls(evidence.candidate.ids, truth.expected, truth.encode(reference.predicted), probabilities, truth.units, len(truth.labels))

    @cached_property
    def right(self) -> Bools:
        """Which rows the reference has right."""
        return np.asarray((self.answers == self.expected) & (self.expected >= 0))

    @cached_property
    def mendable(self) -> Bools:
        """Which of its errors a model of these labels could avoid."""
        return np.asarray(~self.right & (self.expected >= 0))

    @cached_property
    def _wrong(self) -> Ints:
        """A wrong answer for each row: the next label in the list, none of the list where it has only one."""
        return np.asarray((self.expected + 1) % self.classes if self.classes > 1 else np.full(len(self.expected), -1), dtype=np.int64)

    def flipped(self, count: int) -> Ints:
        """Answers with `count` right ones made wrong, spread evenly over groups and classes."""
        return self._with(self._spread(self.right, count), self._wrong)

    def mended(self, count: int) -> Ints:
        """Answers with `count` wrong ones made right, spread evenly over groups and classes."""
        return self._with(self._spread(self.mendable, count), self.expected)

    def shuffled(self) -> Ints:
        """The answers in a random order: each label as often as before, and nothing to do with the rows."""
        return np.random.default_rng(_SEED).permutation(self.answers)

    def perfect(self) -> Ints:
        """The right answer everywhere."""
        return self.expected

    def hopeless(self) -> Ints:
        """A wrong answer everywhere."""
        return self._wrong

    def model(self, answers: Ints) -> Predictions:
        """Return a model that gives these answers: where they differ from the reference's, two probabilities change places."""
        rows = np.flatnonzero((answers != self.answers) & (answers >= 0) & (self.answers >= 0))
        probabilities = self.probabilities.copy()
        probabilities[rows, answers[rows]] = self.probabilities[rows, self.answers[rows]]
        probabilities[rows, self.answers[rows]] = self.probabilities[rows, answers[rows]]
        names = np.array([*map(str, range(self.classes)), "-1"])
        return Predictions(
            self.ids,
            self._groups,
            names[self.expected],
            names[answers],
            probabilities,
            tuple(names[:-1].tolist()),
        )

    @cached_property
    def _groups(self) -> npt.NDArray[np.str_]:
        return self.units.index.astype(np.str_)

    def _with(self, rows: Ints, answers: Ints) -> Ints:
        changed = self.answers.copy()
        changed[rows] = answers[rows]
        return changed

    def _spread(self, among: Bools, count: int) -> Ints:
        """Return `count` of the rows `among`, at even distances when they stand by group and class; all when there are fewer."""
        rows = np.lexsort((self.expected, self.units.index)) if self.units.grouped else np.argsort(self.expected, kind="stable")
        rows = rows[among[rows]]
        return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)]
