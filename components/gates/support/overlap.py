"""Which test rows stand in other rows too: word for word, nearly, or with another label; and which stand in the test set twice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.core.similarity import ClosestText, near_duplicates, plain


@dataclass(frozen=True)
class Pair:
    """A test row and the row that gives it away; `similarity` is Jaccard's of their shingles, 1 where the texts are equal."""

    kind: str
    test_id: str
    other_id: str
    similarity: float
    test_text: str
    other_text: str


@dataclass(frozen=True)
class Overlap:
    """The test rows found, each once in each list: the same text, the same text with another label, nearly the same text."""

    exact: tuple[Pair, ...]
    conflicting: tuple[Pair, ...]
    near: tuple[Pair, ...]


@dataclass(frozen=True)
class TestExposure:
    """The test `rows`, and what each side has of them, by what reasons call it; `fresh` (rows,) are those that no compared model learnt."""

    rows: pd.DataFrame
    sides: dict[str, Overlap]
    fresh: npt.NDArray[np.bool_]

    @property
    def left_out(self) -> tuple[str, ...]:
        """The ids of the rows that leave every comparison."""
        return tuple(map(str, self.rows["id"][~self.fresh]))

    @property
    def usable(self) -> pd.DataFrame:
        """The rows that models are compared on; all of them where none is fresh, and then nothing is compared."""
        return self.rows[self.fresh].reset_index(drop=True) if self.fresh.any() else self.rows


def overlaps(test: pd.DataFrame, sides: Sequence[pd.DataFrame], threshold: float) -> list[Overlap]:
    """Compare the texts of the test rows with those of each of the `sides` (id, text, label); near copies are those that are no exact ones.

    A text that stands on several sides is searched once.
    """
    texts = [_texts(side) for side in sides]
    near = _near(_texts(test), [set(side) for side in texts], threshold)
    return [_overlap(test, side, own, alike) for side, own, alike in zip(sides, texts, near, strict=True)]


def _overlap(test: pd.DataFrame, side: pd.DataFrame, theirs: list[str], near: dict[int, tuple[str, float]]) -> Overlap:
    mine, places = _texts(test), dict[str, list[int]]()
    for place, text in enumerate(theirs):
        places.setdefault(text, []).append(place)
    labels, others = test["label"].tolist(), side["label"].tolist()

    def pair(kind: str, row: int, twin: int, similarity: float = 1.0) -> Pair:
        return Pair(kind, str(test["id"].iat[row]), str(side["id"].iat[twin]), similarity, mine[row], theirs[twin])

    known = {row: places[text] for row, text in enumerate(mine) if text in places}
    strange = {row: [twin for twin in twins if _differ(labels[row], others[twin])] for row, twins in known.items()}
    return Overlap(
        tuple(pair("same text", row, twins[0]) for row, twins in known.items()),
        tuple(pair("another label", row, twins[0]) for row, twins in strange.items() if twins),
        tuple(pair("near copy", row, places[text][0], similarity) for row, (text, similarity) in near.items() if row not in known),
    )


def _near(mine: list[str], sides: list[set[str]], threshold: float) -> list[dict[int, tuple[str, float]]]:
    """Return, for each side, the closest text and its similarity for each place in `mine` that has one."""
    if threshold >= 1:
        return [{} for _ in sides]
    texts, best = sorted(set().union(*sides)), [ClosestText(len(mine)) for _ in sides]
    for places, twin, similarities in near_duplicates(mine, texts, threshold):
        for side, found in zip(sides, best, strict=True):
            if texts[twin] in side:
                found.add(places, twin, similarities)
    return [{row: (texts[twin], similarity) for row, (twin, similarity) in found.matches().items()} for found in best]


def repeated(test: pd.DataFrame, one_answer: bool = True) -> tuple[Pair, ...]:
    """Return the test rows whose text stood in an earlier test row; without `one_answer`, whose text and label did."""
    first: dict[tuple[str, str], int] = {}
    pairs = []
    ids, texts, labels = test["id"].tolist(), _texts(test), [str(label) for label in test["label"]]
    for row, text in enumerate(texts):
        if (twin := first.setdefault((text, "" if one_answer else labels[row]), row)) != row:
            pairs.append(Pair("twice in the test set", str(ids[row]), str(ids[twin]), 1.0, text, texts[twin]))
    return tuple(pairs)


def _texts(rows: pd.DataFrame) -> list[str]:
    return ["" if pd.isna(text) else plain(str(text)) for text in rows["text"].tolist()]


def _differ(one: object, other: object) -> bool:
    """Whether both are labels, and not the same; a missing cell is none."""
    return isinstance(one, str) and isinstance(other, str) and one != other
