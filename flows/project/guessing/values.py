"""What the values of a column look like: texts, labels, lists of labels, ratings, numbers, or flags."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from components.core.errors import listed, shorten
from components.core.text import canonical_label, split_words

TEXT_NAMES = (
    *("text", "sentence", "review", "description", "content", "body", "message", "question", "title", "comment", "tweet", "article"),
    *("document", "abstract", "utterance", "query", "mail", "email", "ticket", "post", "headline", "beschreibung", "nachricht"),
)
LABEL_NAMES = (
    *("label", "labels", "class", "classes", "category", "categories", "target", "sentiment", "topic", "topics", "intent", "tag", "tags"),
    *("emotion", "chapter", "y", "kategorie", "klasse"),
)
RATING_NAMES = (
    *("rating", "ratings", "stars", "star", "score", "grade", "points", "level", "severity", "urgency", "priority", "overall"),
    *("similarity", "satisfaction", "difficulty", "bewertung", "sterne", "note"),
)
_FACT_NAMES = (  # about the row rather than an answer
    *("lang", "language", "sprache", "source", "country", "region", "city", "channel", "platform", "device", "date", "day", "month"),
    *(
        "year",
        "time",
        "timestamp",
        "gender",
        "age",
        "verified",
        "author",
        "user",
        "customer",
        "version",
        "split",
        "fold",
        "annotator",
        "index",
    ),
)
_FLAGS = ({"0", "1"}, {"true", "false"}, {"yes", "no"}, {"y", "n"}, {"t", "f"}, {"ja", "nein"})
_SEPARATORS = (";", "|", ",")  # the default of the option `separator` first
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_SCALES = {(1, 5), (0, 5), (1, 10), (0, 10)}  # lowest and highest of usual ratings
NO_LABEL = 9
"""The rank of a reading that is shown only if the user asks for it."""
_MOST_LEVELS = 11
_SHARE_OF_LISTS = 0.05  # cells with a separator from which a column has lists


@dataclass(frozen=True)
class Labels:
    """A reading of a column as labels: the options of text classification, and how likely it is (0 is the best)."""

    kind: str
    options: Mapping[str, Any]
    description: str
    rank: int
    classes: int


def key(name: str) -> str:
    """Return a column name for comparisons: lower case, words joined by underscores."""
    return re.sub(r"[\s_.-]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())).lower()


def filled(column: "pd.Series[str]") -> "pd.Series[str]":
    """Return the cells that are neither missing nor blank."""
    present = column.dropna()
    return present[present.str.strip() != ""]


def readings(name: str, column: "pd.Series[str]") -> list[Labels]:
    """Return what the labels of a column can be, the most likely first; empty if its cells look like no labels."""
    cells = filled(column)
    if cells.nunique() < 2:
        return []
    if lists := _label_lists(cells):
        separator, counts = lists
        how = "JSON lists" if separator == "[" else f"separated by {separator!r}"
        options = {"kind": "multi"} | ({} if separator in "[;" else {"separator": separator})
        words = f"several labels a row, {how}: {_counted(counts)}"
        return [Labels("multi", options, words, _rank(name, 2), len(counts))]
    found = []
    numeric = _numeric(cells)
    counts = Counter(map(canonical_label, cells))
    if numeric and _is_rating(name, cells):
        ordered = dict(sorted(counts.items(), key=lambda item: float(item[0])))
        found.append(Labels("ordinal", {"kind": "ordinal"}, f"ordered numbers: {_counted(ordered)}", _rank(name, 3), len(counts)))
    decimal = numeric and any("." in cell.removesuffix(".0") for cell in cells)
    few = not decimal and looks_like_label(cells)
    if few and not (numeric and len(counts) > _MOST_LEVELS and key(name) not in LABEL_NAMES):
        flag = {cell.lower() for cell in counts} in _FLAGS
        found.append(Labels("single", {}, f"{len(counts)} labels: {_counted(counts)}", _rank(name, 5 if flag else 4), len(counts)))
    if numeric and len(counts) > 2:
        values = cells.astype(float)
        words = f"numbers from {values.min():g} to {values.max():g}"
        found.append(Labels("regression", {"kind": "regression"}, words, _rank(name, 6), 0))
    return found


def is_flag(column: "pd.Series[str]") -> bool:
    """Return whether all cells are 0 or 1, or true or false."""
    values = {cell.strip().lower().removesuffix(".0") for cell in column.dropna().unique()}
    return len(values) > 0 and (values <= {"0", "1"} or values <= {"true", "false"})


def looks_like_text(column: "pd.Series[str]") -> bool:
    """Return whether most values differ and have several words."""
    cells = column.dropna()
    several = bool(len(cells)) and cells.nunique() > 0.3 * len(cells) and float(word_counts(cells).mean()) >= 2
    return several and not cells.head(50).str.fullmatch(r"\s*[\[{].*[\]}]\s*", flags=re.DOTALL).all()


def text_column(frame: pd.DataFrame) -> str | None:
    """Return the column of texts with the best known name, else the one with the longest texts."""
    likely = [str(name) for name in frame.columns if looks_like_text(frame[name])]
    named = [column for name in TEXT_NAMES for column in likely if key(column) == name]
    return named[0] if named else max(likely, key=lambda name: float(word_counts(frame[str(name)]).mean()), default=None)


def looks_like_label(column: "pd.Series[str]") -> bool:
    """Return whether the values are few, short and repeated."""
    cells = column.dropna()
    return 2 <= cells.nunique() <= max(2, min(500, len(cells) // 3)) and longest(cells) <= 200


def word_counts(column: "pd.Series[str]") -> "pd.Series[int]":
    """Return the number of words of each value."""
    return column.fillna("").map(lambda text: len(split_words(str(text))))


def longest(column: "pd.Series[str]") -> int:
    """Return the length of the longest value, in characters."""
    return max((len(str(value)) for value in column.dropna()), default=0)


def json_lists(column: "pd.Series[str]") -> list[list[Any]] | None:
    """Return the JSON lists of a column; None unless every filled cell is one."""
    lists = []
    for cell in filled(column):
        try:
            value = json.loads(cell) if cell.lstrip().startswith("[") else None
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, list):
            return None
        lists.append(value)
    return lists or None


def _label_lists(cells: "pd.Series[str]") -> tuple[str, Counter[str]] | None:
    """Return the separator of the labels in each cell, `[` for JSON lists, and the rows of each label; None for single labels."""
    if lists := json_lists(cells):
        names = [name for items in lists for name in items]
        if names and all(isinstance(name, str) for name in names):
            counts = Counter(map(canonical_label, names))
            return ("[", counts) if _repeated(counts, names) else None
        return None
    for separator in _SEPARATORS:
        split = [[part.strip() for part in cell.split(separator)] for cell in cells]
        several = [parts for parts in split if len(parts) > 1]
        names = [name for parts in split for name in parts]
        if len(several) < max(2, _SHARE_OF_LISTS * len(cells)) or not all(names) or max(len(split_words(name)) for name in names) > 4:
            continue
        counts = Counter(map(canonical_label, names))
        # A comma may also be a part of a name, e.g. Paris, France: then all names have as many parts.
        if _repeated(counts, names) and (separator != "," or len({len(parts) for parts in split}) > 1) and len(counts) <= cells.nunique():
            return separator, counts
    return None


def _repeated(counts: Counter[str], names: list[str]) -> bool:
    return len(counts) >= 2 and len(counts) <= max(2, min(500, len(names) // 3))


def _numeric(cells: "pd.Series[str]") -> bool:
    return all(_NUMBER.fullmatch(cell.strip()) for cell in cells)


def _is_rating(name: str, cells: "pd.Series[str]") -> bool:
    """Return whether numbers are a few whole levels without a gap: a usual scale, or any under the name of a rating."""
    values = sorted({float(cell) for cell in cells})
    whole = all(value.is_integer() for value in values)
    if not whole or not 3 <= len(values) <= _MOST_LEVELS or values[-1] - values[0] != len(values) - 1:
        return False
    if set(key(name).split("_")) & set(RATING_NAMES):
        return True
    scale = int(values[0]), int(values[-1])
    return scale in _SCALES and (scale[0] == 1 or key(name) not in LABEL_NAMES)  # numbered classes start at 0


def _rank(name: str, by_values: int) -> int:
    """Return how likely a column has the answers: by its name, else by its values."""
    words = key(name).split("_")
    if key(name) in LABEL_NAMES:
        return 0
    if set(words) & set(_FACT_NAMES):
        return NO_LABEL
    if set(words) & set(LABEL_NAMES):
        return 1
    return 2 if set(words) & set(RATING_NAMES) else by_values


def _counted(counts: Mapping[str, int]) -> str:
    pairs: Iterable[tuple[str, int]] = counts.most_common() if isinstance(counts, Counter) else counts.items()
    return listed([f"{shorten(name, 40)} ({count:,})" for name, count in pairs], 5)
