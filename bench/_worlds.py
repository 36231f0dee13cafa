"""Simulated test sets: two models with a known difference in accuracy."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.artifacts.predictions import Predictions

Ints = npt.NDArray[np.int64]

ACCURACY = {0.85: 0.80, 0.90: 0.85, 0.95: 0.90}  # accuracy of the champion, by paired agreement
SHARES = {2: 1.5, 6: 10.0, 22: 30.0}  # ratio of the most frequent to the rarest class, by number of classes
GROUP_ROWS = 3  # mean group size (geometric distribution)
CORRELATION = 0.3  # within groups
WORDS = np.array(["left", "right", "lower", "upper", "limb", "acute", "chronic", "fracture", "without", "infection", "initial", "due"])


@dataclass(frozen=True)
class Draw:
    """One test set: label indices, group indices, and the answers of three models."""

    expected: Ints
    groups: Ints
    candidate: Ints
    champion: Ints
    baseline: Ints
    confidence: npt.NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """`difference` is the candidate's true accuracy minus the champion's; they agree on a share `agreement` of the rows.

    `grouping`: "none", "rows" (rows of a group have similar difficulty) or "labels" (and the same label).
    """

    rows: int
    classes: int
    grouping: str
    agreement: float
    difference: float

    @property
    def accuracy(self) -> float:
        return ACCURACY[self.agreement]

    @cached_property
    def shares(self) -> npt.NDArray[np.float64]:
        shares = SHARES[self.classes] ** -np.linspace(0, 1, self.classes)
        return shares / shares.sum()

    def draw(self, rng: np.random.Generator) -> Draw:
        """Draw a test set and the models' answers."""
        rows, groups = self.rows, np.arange(self.rows)
        hard, expected = rng.random(rows), rng.choice(self.classes, rows, p=self.shares)
        if self.grouping != "none":
            groups = np.repeat(groups, rng.geometric(1 / GROUP_ROWS, rows))[:rows]
            hard = np.where(rng.random(rows) < np.sqrt(CORRELATION), rng.random(rows)[groups], hard)
        if self.grouping == "labels":
            expected = expected[groups]
        disagree = 1 - self.agreement
        gained, lost = (disagree + self.difference) / 2, (disagree - self.difference) / 2
        both = self.accuracy - lost
        wrong, other = ((expected + rng.integers(1, self.classes, rows)) % self.classes for _ in range(2))
        candidate = np.where(hard < both + gained, expected, wrong)
        champion = np.where((hard < both) | ((hard >= both + gained) & (hard < both + disagree)), expected, wrong)
        baseline = np.where(rng.random(rows) < self.accuracy - 0.15, expected, other)
        return Draw(expected, groups, candidate, champion, baseline, rng.uniform(0.5, 0.99, rows))

    def macro_f1_difference(self, draw: Draw, chosen: npt.NDArray[np.bool_]) -> float:
        """Return the true difference in macro-F1 over the `chosen` classes, at the class frequencies of this test set."""
        shares = np.bincount(draw.expected, minlength=self.classes) / self.rows
        scores = []
        for accuracy in (self.accuracy + self.difference, self.accuracy):
            predicted = shares * accuracy + (1 - shares) * (1 - accuracy) / (self.classes - 1)
            scores.append(float((2 * shares * accuracy / (shares + predicted))[chosen].mean()))
        return scores[0] - scores[1]


class Naming:
    """Names of the rows, groups and labels of a world, created once for all draws."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.ids = np.array([f"r{row:05d}" for row in range(world.rows)])
        self.groups = np.array([f"g{group:05d}" for group in range(world.rows)])
        self.labels = np.array([f"c{index:02d}" for index in range(world.classes)])
        words = rng.integers(1, 30, world.rows)
        texts = [" ".join(WORDS[rng.integers(0, len(WORDS), count)]) for count in words]
        self.table = pd.DataFrame({"id": self.ids, "text": texts, "source": rng.choice(["web", "phone", "mail"], world.rows)}, dtype=object)

    def predictions(self, draw: Draw, answers: Ints) -> Predictions:
        """Return a model's predictions: its answer has the draw's confidence, the other labels share the rest."""
        rows, classes = len(answers), len(self.labels)
        probabilities = np.repeat(((1 - draw.confidence) / (classes - 1))[:, None], classes, axis=1)
        probabilities[np.arange(rows), answers] = draw.confidence
        labels = tuple(self.labels.tolist())
        return Predictions(self.ids, self.groups[draw.groups], self.labels[draw.expected], self.labels[answers], probabilities, labels)

    def rows(self, draw: Draw) -> pd.DataFrame:
        """Return the test rows with their columns."""
        columns = {"group": self.groups[draw.groups], "label": self.labels[draw.expected]}
        return self.table.assign(**{name: pd.Series(values, dtype=object) for name, values in columns.items()})
