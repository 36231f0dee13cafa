"""What the predictions tell: which errors are worth reading, what is taken for what, and what changed against the champion. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.artifacts.predictions import Predictions


@dataclass(frozen=True)
class Mistake:
    """A wrong answer: the probability given to it, and the one left for the right answer (None: not a label of the model)."""

    id: str
    text: str | None
    expected: str
    predicted: str
    probability: float
    probability_expected: float | None


@dataclass(frozen=True)
class ConfusedPair:
    """Rows of one label that were taken for another; `share` is of the expected label's rows."""

    expected: str
    predicted: str
    rows: int
    share: float


@dataclass(frozen=True)
class AnswerChange:
    """A row on which exactly one of two models is right."""

    id: str
    text: str | None
    expected: str
    champion: str
    candidate: str


@dataclass(frozen=True)
class Changes:
    """The rows of both models' test sets by who is right."""

    both_right: int
    both_wrong: int
    fixed: tuple[AnswerChange, ...]
    broken: tuple[AnswerChange, ...]

    @property
    def rows(self) -> int:
        """The number of rows compared."""
        return self.both_right + self.both_wrong + len(self.fixed) + len(self.broken)


def worst_mistakes(predictions: Predictions, texts: Mapping[str, str], limit: int = 20) -> tuple[Mistake, ...]:
    """Return the wrong answers that the model was surest of, the surest first."""
    wrong = np.flatnonzero(predictions.expected != predictions.predicted)
    sure = predictions.probabilities.max(axis=1) if len(predictions.ids) else np.zeros(0)
    place = {label: at for at, label in enumerate(predictions.labels)}
    mistakes = []
    for row in wrong[np.argsort(-sure[wrong], kind="stable")][:limit]:
        expected = str(predictions.expected[row])
        left = float(predictions.probabilities[row, place[expected]]) if expected in place else None
        identity = str(predictions.ids[row])
        mistakes.append(Mistake(identity, texts.get(identity), expected, str(predictions.predicted[row]), float(sure[row]), left))
    return tuple(mistakes)


def confusion(predictions: Predictions) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """Return the labels and the counts, rows expected and columns predicted, in the order of the labels."""
    extra = sorted({*predictions.expected.tolist(), *predictions.predicted.tolist()} - set(predictions.labels))
    labels = (*predictions.labels, *extra)
    place = {label: at for at, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for expected, predicted in zip(predictions.expected.tolist(), predictions.predicted.tolist(), strict=True):
        counts[place[expected], place[predicted]] += 1
    return labels, counts


def confused_pairs(predictions: Predictions, limit: int = 12) -> tuple[ConfusedPair, ...]:
    """Return the most frequent wrong pairs of labels."""
    expected, predicted = predictions.expected.tolist(), predictions.predicted.tolist()
    totals = Counter(expected)
    pairs = Counter(pair for pair in zip(expected, predicted, strict=True) if pair[0] != pair[1])
    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    return tuple(ConfusedPair(a, b, rows, rows / totals[a]) for (a, b), rows in ordered[:limit])


def changes(candidate: Predictions, champion: Predictions, texts: Mapping[str, str]) -> Changes:
    """Compare two models on the rows that both answered; the rows need not come in the same order."""
    before = dict(zip(champion.ids.tolist(), champion.predicted.tolist(), strict=True))
    rows = [
        AnswerChange(identity, texts.get(identity), expected, before[identity], predicted)
        for identity, expected, predicted in _answers(candidate)
        if identity in before
    ]
    fixed = tuple(row for row in rows if row.candidate == row.expected != row.champion)
    broken = tuple(row for row in rows if row.champion == row.expected != row.candidate)
    both_right = sum(row.candidate == row.expected == row.champion for row in rows)
    return Changes(both_right, len(rows) - both_right - len(fixed) - len(broken), fixed, broken)


def settings_in_force(params: Mapping[str, object], trained: Mapping[str, object]) -> dict[str, object]:
    """Return all parameters by their dotted path, with the values that training used where the search chose them."""
    return dict(_flat(params)) | {f"train.{name}": value for name, value in trained.items()}


def differing_settings(before: Mapping[str, object], now: Mapping[str, object], absent: str) -> list[tuple[str, object, object]]:
    """Return name, earlier and present value of what differs, by name; 3, 3.0 and "3" are the same value."""
    pairs = [(name, before.get(name, absent), now.get(name, absent)) for name in sorted({*before, *now})]
    return [pair for pair in pairs if _plain(pair[1]) != _plain(pair[2])]


def _flat(params: Mapping[str, object], above: str = "") -> Iterable[tuple[str, object]]:
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _plain(value: object) -> object:
    """Return a value as it compares after a way through JSON or text."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    try:
        return float(str(value))
    except ValueError:
        return str(list(value)) if isinstance(value, list | tuple) else str(value)


def _answers(predictions: Predictions) -> Iterable[tuple[str, str, str]]:
    return zip(predictions.ids.tolist(), predictions.expected.tolist(), predictions.predicted.tolist(), strict=True)
