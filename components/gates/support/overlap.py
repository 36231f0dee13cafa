"""Copies of test rows: exact, near or with another label in other rows, and duplicates within the test set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.core.similarity import ClosestText, near_duplicates, plain


@dataclass(frozen=True)
class Pair:
    """A test row and its copy; `similarity` is the Jaccard similarity of their shingles, 1 for equal texts."""

    reason: str
    test_id: str
    other_id: str
    similarity: float
    test_text: str
    other_text: str


@dataclass(frozen=True)
class Overlap:
    """Test rows with a copy in other rows, each once per field: same text, same text with another label, near copy."""

    exact: tuple[Pair, ...]
    conflicting: tuple[Pair, ...]
    near: tuple[Pair, ...]


@dataclass(frozen=True)
class TestExposure:
    """The test `rows` and their copies in each set of training rows, by its name in messages.

    `unseen` (rows,) marks the rows that no compared model was trained on.
    """

    rows: pd.DataFrame
    overlaps: dict[str, Overlap]
    unseen: npt.NDArray[np.bool_]

    @property
    def left_out(self) -> tuple[str, ...]:
        """Ids of the rows that are excluded from every comparison."""
        return tuple(map(str, self.rows["id"][~self.unseen]))

    @property
    def comparable(self) -> pd.DataFrame:
        """The unseen rows; all rows if none is unseen (then no model is compared)."""
        return self.rows[self.unseen].reset_index(drop=True) if self.unseen.any() else self.rows


def overlaps(test: pd.DataFrame, sources: Sequence[pd.DataFrame], threshold: float) -> list[Overlap]:
    """Compare the texts of the test rows with each of the `sources` (id, text, label); near copies exclude exact ones.

    A text that occurs in several sources is searched once.
    """
    texts = [_texts(source) for source in sources]
    near = _near(_texts(test), [set(source) for source in texts], threshold)
    return [_overlap(test, *parts) for parts in zip(sources, texts, near, strict=True)]


def _overlap(test: pd.DataFrame, source: pd.DataFrame, source_texts: list[str], near: dict[int, tuple[str, float]]) -> Overlap:
    test_texts, positions = _texts(test), dict[str, list[int]]()
    for position, text in enumerate(source_texts):
        positions.setdefault(text, []).append(position)
    labels, source_labels = test["label"].tolist(), source["label"].tolist()

    def pair(reason: str, row: int, twin: int, similarity: float = 1.0) -> Pair:
        ids = str(test["id"].iat[row]), str(source["id"].iat[twin])
        return Pair(reason, *ids, similarity, test_texts[row], source_texts[twin])

    exact = {row: positions[text] for row, text in enumerate(test_texts) if text in positions}
    conflicting = {row: [twin for twin in twins if _differ(labels[row], source_labels[twin])] for row, twins in exact.items()}
    return Overlap(
        tuple(pair("same text", row, twins[0]) for row, twins in exact.items()),
        tuple(pair("another label", row, twins[0]) for row, twins in conflicting.items() if twins),
        tuple(pair("near copy", row, positions[text][0], similarity) for row, (text, similarity) in near.items() if row not in exact),
    )


def _near(test_texts: list[str], sources: list[set[str]], threshold: float) -> list[dict[int, tuple[str, float]]]:
    """Return for each source the closest text and its similarity, by the index of the test text."""
    if threshold >= 1:
        return [{} for _ in sources]
    texts, closest = sorted(set().union(*sources)), [ClosestText(len(test_texts)) for _ in sources]
    for rows, twin, similarities in near_duplicates(test_texts, texts, threshold):
        for source, best in zip(sources, closest, strict=True):
            if texts[twin] in source:
                best.add(rows, twin, similarities)
    return [{row: (texts[twin], similarity) for row, (twin, similarity) in best.matches().items()} for best in closest]


def repeated(test: pd.DataFrame, one_answer: bool = True) -> tuple[Pair, ...]:
    """Return the test rows whose text occurs in an earlier test row; without `one_answer`, whose text and label do."""
    first: dict[tuple[str, str], int] = {}
    pairs = []
    ids, texts, labels = test["id"].tolist(), _texts(test), [str(label) for label in test["label"]]
    for row, text in enumerate(texts):
        if (twin := first.setdefault((text, "" if one_answer else labels[row]), row)) != row:
            pairs.append(Pair("twice in the test set", str(ids[row]), str(ids[twin]), 1.0, text, texts[twin]))
    return tuple(pairs)


def _texts(rows: pd.DataFrame) -> list[str]:
    return ["" if pd.isna(text) else plain(str(text)) for text in rows["text"].tolist()]


def _differ(left: object, right: object) -> bool:
    """Whether both cells are labels, and different; a missing cell is not a label."""
    return isinstance(left, str) and isinstance(right, str) and left != right
