"""Error analysis of predictions: worst mistakes, confusions, and changes against the champion. Pure functions."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.artifacts.predictions import Predictions
from components.core.documents import flatten


@dataclass(frozen=True)
class Mistake:
    """A wrong answer, its probability, and that of the correct answer (None: not a label of the model)."""

    id: str
    text: str | None
    expected: str
    predicted: str
    probability: float
    probability_expected: float | None


@dataclass(frozen=True)
class ConfusedPair:
    """Rows of one label predicted as another; `share` is relative to the rows of the expected label."""

    expected: str
    predicted: str
    rows: int
    share: float


@dataclass(frozen=True)
class AnswerChange:
    """A row that exactly one of two models answers correctly; `after` is the answer of the newer one."""

    id: str
    text: str | None
    expected: str
    before: str
    after: str


@dataclass(frozen=True)
class Changes:
    """Rows of both models' test sets by the correct model."""

    both_right: int
    both_wrong: int
    fixed: tuple[AnswerChange, ...]
    broken: tuple[AnswerChange, ...]

    @property
    def rows(self) -> int:
        """The number of rows compared."""
        return self.both_right + self.both_wrong + len(self.fixed) + len(self.broken)


def worst_mistakes(predictions: Predictions, texts: Mapping[str, str], limit: int = 20) -> tuple[Mistake, ...]:
    """Return the wrong answers with the highest probability, the highest first."""
    wrong = np.flatnonzero(predictions.expected != predictions.predicted)
    confidence = predictions.probabilities.max(axis=1) if len(predictions.ids) else np.zeros(0)
    index = {label: at for at, label in enumerate(predictions.labels)}
    mistakes = []
    for row in wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]:
        expected = str(predictions.expected[row])
        correct = float(predictions.probabilities[row, index[expected]]) if expected in index else None
        identity = str(predictions.ids[row])
        mistakes.append(Mistake(identity, texts.get(identity), expected, str(predictions.predicted[row]), float(confidence[row]), correct))
    return tuple(mistakes)


def confusion(predictions: Predictions) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Return the labels and the counts (expected, predicted) in the order of the labels."""
    extra = sorted({*predictions.expected.tolist(), *predictions.predicted.tolist()} - set(predictions.labels))
    labels = (*predictions.labels, *extra)
    counts = pd.crosstab(predictions.expected, predictions.predicted).reindex(index=labels, columns=labels, fill_value=0)
    return labels, counts.to_numpy(dtype=np.int64)


def confused_pairs(predictions: Predictions, limit: int = 12) -> tuple[ConfusedPair, ...]:
    """Return the most frequent wrong pairs of labels."""
    expected, predicted = predictions.expected.tolist(), predictions.predicted.tolist()
    totals = Counter(expected)
    pairs = Counter(pair for pair in zip(expected, predicted, strict=True) if pair[0] != pair[1])
    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return tuple(ConfusedPair(a, b, rows, rows / totals[a]) for (a, b), rows in ordered[:limit])


def changes(candidate: Predictions, champion: Predictions, texts: Mapping[str, str]) -> Changes:
    """Compare two models on the rows that both answered, in any order."""
    before = dict(zip(champion.ids.tolist(), champion.predicted.tolist(), strict=True))
    rows = [
        AnswerChange(identity, texts.get(identity), expected, before[identity], predicted)
        for identity, expected, predicted in zip(
            candidate.ids.tolist(), candidate.expected.tolist(), candidate.predicted.tolist(), strict=True
        )
        if identity in before
    ]
    fixed = tuple(row for row in rows if row.after == row.expected != row.before)
    broken = tuple(row for row in rows if row.before == row.expected != row.after)
    both_right = sum(row.after == row.expected == row.before for row in rows)
    return Changes(both_right, len(rows) - both_right - len(fixed) - len(broken), fixed, broken)


def settings_in_force(params: Mapping[str, object], trained: Mapping[str, object]) -> dict[str, object]:
    """Return all parameters by dotted path, with the values of the training in place of searched ones."""
    return flatten(params) | {f"train.{name}": value for name, value in trained.items()}


def differing_settings(before: Mapping[str, object], now: Mapping[str, object], absent: str) -> list[tuple[str, object, object]]:
    """Return name, old and new value of each difference, sorted by name; 3, 3.0 and "3" are equal."""
    pairs = [(name, before.get(name, absent), now.get(name, absent)) for name in sorted({*before, *now})]
    return [pair for pair in pairs if _plain(pair[1]) != _plain(pair[2])]


def _plain(value: object) -> object:
    """Return a value in the form that survives JSON or text."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    try:
        return float(str(value))
    except ValueError:
        return str(list(value)) if isinstance(value, list | tuple) else str(value)
