"""Which test rows stand in other rows too: word for word, nearly, or with another label; and which stand in the test set twice."""

from dataclasses import dataclass

import pandas as pd

from components.similarity import closest
from components.text import normalise


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


def overlap(test: pd.DataFrame, other: pd.DataFrame, threshold: float) -> Overlap:
    """Compare the texts of the test rows with those of `other` (id, text, label); near copies are those that are no exact ones."""
    mine, theirs = _texts(test), _texts(other)
    places: dict[str, list[int]] = {}
    for place, text in enumerate(theirs):
        places.setdefault(text, []).append(place)
    labels, others = test["label"].tolist(), other["label"].tolist()

    def pair(kind: str, row: int, twin: int, similarity: float = 1.0) -> Pair:
        return Pair(kind, str(test["id"].iat[row]), str(other["id"].iat[twin]), similarity, mine[row], theirs[twin])

    known = {row: places[text] for row, text in enumerate(mine) if text in places}
    strange = {row: [twin for twin in twins if _differ(labels[row], others[twin])] for row, twins in known.items()}
    new = [row for row in range(len(mine)) if row not in known]
    distinct = list(places)
    near = closest([mine[row] for row in new], distinct, threshold) if threshold < 1 else {}
    return Overlap(
        tuple(pair("same text", row, twins[0]) for row, twins in known.items()),
        tuple(pair("another label", row, twins[0]) for row, twins in strange.items() if twins),
        tuple(pair("near copy", new[row], places[distinct[twin]][0], similarity) for row, (twin, similarity) in near.items()),
    )


def repeated(test: pd.DataFrame) -> tuple[Pair, ...]:
    """Return the test rows whose text stood in an earlier test row."""
    first: dict[str, int] = {}
    pairs = []
    ids, texts = test["id"].tolist(), _texts(test)
    for row, text in enumerate(texts):
        if (twin := first.setdefault(text, row)) != row:
            pairs.append(Pair("twice in the test set", str(ids[row]), str(ids[twin]), 1.0, text, texts[twin]))
    return tuple(pairs)


def _texts(rows: pd.DataFrame) -> list[str]:
    return ["" if pd.isna(text) else normalise(str(text), "NFC") for text in rows["text"].tolist()]


def _differ(one: object, other: object) -> bool:
    """Whether both are labels, and not the same; a missing cell is none."""
    return isinstance(one, str) and isinstance(other, str) and one != other
