"""Parse rows of each data format: the text, the query and the expected text, and invalid rows."""

import hashlib
import math
from collections.abc import Callable, Mapping

import pandas as pd

from components.core.text import TERM, normalise, split_words

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "pairs": ("anchor", "positive"),
    "triplets": ("anchor", "positive", "negative"),
    "scored": ("text_a", "text_b", "score"),
    "texts": ("text",),
}

_Row = Mapping[str, str]


def read_rows(rows: pd.DataFrame, data: str, lowest: float, highest: float) -> tuple[pd.DataFrame, dict[int, str]]:
    """Return `rows` with `text` and `label`, and the errors by row index."""
    cells = [dict(zip(COLUMNS[data], row, strict=True)) for row in zip(*(rows[name].tolist() for name in COLUMNS[data]), strict=True)]
    texts = [row[COLUMNS[data][0]] for row in cells]
    labels = [_LABEL[data](row) for row in cells]
    faults = {index: fault for index, row in enumerate(cells) if (fault := _fault(row, data, lowest, highest))}
    return rows.assign(text=pd.Series(texts, index=rows.index, dtype="str"), label=pd.Series(labels, index=rows.index, dtype="str")), faults


def sides(rows: pd.DataFrame, data: str) -> tuple[list[str], list[str]]:
    """Return query and expected text of each row; for single texts, the two halves."""
    if data == "texts":
        both = [halves(text) for text in rows["text"]]
        return [first for first, _ in both], [second for _, second in both]
    query, expected = COLUMNS[data][:2]
    return rows[query].tolist(), rows[expected].tolist()


def halves(text: str) -> tuple[str, str]:
    """Return the words of `text` at even and at odd positions."""
    words, between = split_words(text), " " if " " in text else ""
    return between.join(words[::2]), between.join(words[1::2])


def key(text: str) -> int:
    """Return a 64-bit signed hash (sha256) of a text, independent of its Unicode form."""
    return int.from_bytes(hashlib.sha256(normalise(text, "NFC").encode()).digest()[:8], signed=True)


def words(text: str) -> frozenset[str]:
    """Return the case-folded words of `text`."""
    return frozenset(TERM.findall(text.casefold()))


def _fault(row: _Row, data: str, lowest: float, highest: float) -> str:
    """Return the error of a row, or ""."""
    if data == "scored":
        return _fault_of_score(row["score"], lowest, highest)
    if data == "texts":
        return "" if len(split_words(row["text"])) > 1 else "text has one word, so it cannot be split into halves"
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
        value = math.nan
    if not math.isfinite(value):
        return "score is not a number"
    return "" if lowest <= value <= highest else f"score is not between {lowest:g} and {highest:g}"


# The label contains all differences between rows with equal text, because preprocessing removes duplicates of text and label.
_LABEL: Mapping[str, Callable[[_Row], str]] = {
    "pairs": lambda row: row["positive"],
    "triplets": lambda row: f"{row['positive']} (not: {row['negative']})",
    "scored": lambda row: f"{row['score'].strip()}: {row['text_b']}",
    "texts": lambda row: "",
}
