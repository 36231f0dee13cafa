"""What each kind of data holds: which text is embedded, what it is searched by and what is to be found, and which rows are bad."""

import hashlib
import math
import re
from collections.abc import Callable, Mapping

import pandas as pd

from components.core.text import normalise

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "pairs": ("anchor", "positive"),
    "triplets": ("anchor", "positive", "negative"),
    "scored": ("text_a", "text_b", "score"),
    "texts": ("text",),
}

_WORD = re.compile(r"\w+")
_Row = Mapping[str, str]


def read(rows: pd.DataFrame, data: str, lowest: float, highest: float) -> tuple[pd.DataFrame, dict[int, str]]:
    """Return `rows` with `text` and `label`, and what is wrong with each bad one."""
    cells = [dict(zip(COLUMNS[data], row, strict=True)) for row in zip(*(rows[name].tolist() for name in COLUMNS[data]), strict=True)]
    texts = [row[COLUMNS[data][0]] for row in cells]
    labels = [_LABEL[data](row) for row in cells]
    faults = {place: fault for place, row in enumerate(cells) if (fault := _fault(row, data, lowest, highest))}
    return rows.assign(text=pd.Series(texts, index=rows.index, dtype="str"), label=pd.Series(labels, index=rows.index, dtype="str")), faults


def sides(rows: pd.DataFrame, data: str) -> tuple[list[str], list[str]]:
    """Return for each row what is searched by and what is to be found; of a single text, one half of its words and the other."""
    if data == "texts":
        both = [halves(text) for text in rows["text"]]
        return [one for one, _ in both], [other for _, other in both]
    one, other = COLUMNS[data][:2]
    return rows[one].tolist(), rows[other].tolist()


def halves(text: str) -> tuple[str, str]:
    """Return every second word of `text` from the first on, and the words between them."""
    words = text.split()
    return " ".join(words[::2]), " ".join(words[1::2])


def key(text: str) -> int:
    """Return a number that equal texts share, whatever their Unicode form: 64 bits of a sha256, signed."""
    return int.from_bytes(hashlib.sha256(normalise(text, "NFC").encode()).digest()[:8], signed=True)


def words(text: str) -> frozenset[str]:
    """Return the words of `text`, without case."""
    return frozenset(_WORD.findall(text.casefold()))


def _fault(row: _Row, data: str, lowest: float, highest: float) -> str:
    """Return what is wrong with a row, or nothing."""
    if data == "scored":
        return _fault_of_score(row["score"], lowest, highest)
    if data == "texts":
        return "" if len(row["text"].split()) > 1 else "text has one word, so it has no halves that could find each other"
    anchor, positive, negative = (key(row[name]) if name in row else None for name in COLUMNS["triplets"])
    if anchor == positive:
        return "anchor and positive are the same text"
    if negative == positive:
        return "negative and positive are the same text"
    return "negative and anchor are the same text" if negative == anchor else ""


def _fault_of_score(score: str, lowest: float, highest: float) -> str:
    try:
        value = float(score)
    except ValueError:
        return "score is not a number"
    if not math.isfinite(value):
        return "score is not a number"
    return "" if lowest <= value <= highest else f"score is not between {lowest:g} and {highest:g}"


# All that makes two rows with one text different stands in the label: of equal ones preprocessing keeps one.
_LABEL: Mapping[str, Callable[[_Row], str]] = {
    "pairs": lambda row: row["positive"],
    "triplets": lambda row: f"{row['positive']} (not: {row['negative']})",
    "scored": lambda row: f"{row['score'].strip()}: {row['text_b']}",
    "texts": lambda row: "",
}
