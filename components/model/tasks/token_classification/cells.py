"""Parse cells with tokens, tags and spans, and find the words of a raw text. A bad cell raises `BadCell` with the reason."""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from components.core.text import UNSPACED
from components.model.tasks.token_classification.schemes import Entity

Span = tuple[int, int, str]
"""Start and end (exclusive) in characters, and the label."""

_UNSPACED = re.compile(f"[{UNSPACED}\U00020000-\U0003ffff]")


class BadCell(ValueError):
    """A cell that cannot be parsed; the message is the quarantine reason."""


def texts_of(cell: str, name: str) -> list[str]:
    """Return the texts of a cell: a JSON list in [ ], else separated by white space.

    Raise BadCell if the cell looks like a list but is not a list of texts, or is an empty list.
    """
    cell = cell.strip()
    if not (cell.startswith("[") and cell.endswith("]")) and not cell.startswith('["'):
        return cell.split()
    texts = _json(cell, name)
    if not isinstance(texts, list) or not all(isinstance(item, str) for item in texts):
        raise BadCell(f"{name}: the list contains items that are not texts")
    if not texts:
        raise BadCell(f"{name}: an empty list")
    return texts


def sentence(tokens: str, tags: str) -> tuple[list[str], list[str]]:
    """Return the tokens and tags of a row, in equal number.

    Raise BadCell if a cell cannot be parsed, the numbers differ, or a tag is blank or contains white space.
    """
    words, labels = texts_of(tokens, "tokens"), texts_of(tags, "tags")
    if len(words) != len(labels):
        raise BadCell("the number of tags differs from the number of tokens")
    if any(tag.split() != [tag] for tag in labels):
        raise BadCell("a tag is blank or contains white space")
    return words, labels


def spans_of(cell: str) -> list[Span]:
    """Return the spans of a cell: a JSON list of [start, end, label] or of objects with these keys.

    Raise BadCell if the cell has another format.
    """
    return [_span(item) for item in _spans(cell)]


def rename_spans(cell: str, rename: Callable[[str], str]) -> str:
    """Apply `rename` to the label of each span; invalid spans stay unchanged; raise BadCell if the cell is not a JSON list."""
    spans = _spans(cell)
    new = [_rename(item, rename) for item in spans]
    return cell if new == spans else json.dumps(new, ensure_ascii=False)


def _rename(span: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(span, dict) and isinstance(span.get("label"), str):
        return {**span, "label": rename(span["label"])}
    if isinstance(span, list) and len(span) == 3 and isinstance(span[2], str):
        return [*span[:2], rename(span[2])]
    return span


def to_entities(text: str, spans: Sequence[Span], words: Sequence[tuple[int, int]]) -> list[Entity]:
    """Convert spans of `text` to entities over its `words`; white space at the ends of a span is ignored.

    Raise BadCell if a span is outside the text, is blank, begins or ends inside a word, or overlaps another.
    """
    begins = {begin: index for index, (begin, _) in enumerate(words)}
    ends = {end: index + 1 for index, (_, end) in enumerate(words)}
    entities: list[Entity] = []
    for start, end, label in spans:
        if not 0 <= start < end <= len(text):
            raise BadCell("a span is empty or outside the text")
        inner = text[start:end]
        if not inner.strip():
            raise BadCell("a span contains only white space")
        first, last = start + len(inner) - len(inner.lstrip()), end - len(inner) + len(inner.rstrip())
        if first not in begins or last not in ends:
            raise BadCell("a span begins or ends inside a word")
        entities.append((begins[first], ends[last], label))
    entities.sort()
    if any(entity[1] > following[0] for entity, following in pairwise(entities)):
        raise BadCell("spans overlap")
    return entities


def words_in(text: str) -> list[tuple[int, int]]:
    """Return start and end (exclusive) of the words of a raw text, in characters.

    A word is a run of letters, digits and marks. Any other visible character is a separate word, and so is each letter (with its marks) of
    a script without spaces. White space and invisible characters are not part of a word.
    """
    words: list[tuple[int, int]] = []
    open_end = False  # whether a letter can extend the last word
    for index, character in enumerate(text):
        category = unicodedata.category(character)
        if category[0] == "Z" or category in ("Cc", "Cf"):
            continue
        letter = category[0] in "LN" and not _UNSPACED.match(character)
        if words and words[-1][1] == index and (category[0] == "M" or (letter and open_end)):
            words[-1] = (words[-1][0], index + 1)
        else:
            words.append((index, index + 1))
            open_end = letter
    return words


def to_spans(entities: Iterable[Entity], words: Sequence[tuple[int, int]]) -> list[Span]:
    """Convert entities over `words` to character spans."""
    return [(words[begin][0], words[end - 1][1], label) for begin, end, label in entities]


def span_text(spans: Iterable[Span]) -> str:
    """Return spans as a sorted JSON list of [start, end, label]; equal spans give equal texts."""
    return json.dumps(sorted(map(list, spans)), ensure_ascii=False)


def _spans(cell: str) -> list[Any]:
    spans = _json(cell, "spans")
    if not isinstance(spans, list):
        raise BadCell("spans: not a list")
    return spans


def _span(item: Any) -> Span:
    try:
        start, end, label = (item["start"], item["end"], item["label"]) if isinstance(item, dict) else item
    except (KeyError, TypeError, ValueError):
        raise BadCell("spans: an item is neither [start, end, label] nor an object with these keys") from None
    if type(start) is not int or type(end) is not int or not isinstance(label, str) or not label.strip():
        raise BadCell("spans: start and end must be integers, and label a text")
    return start, end, label.strip()


def _json(cell: str, name: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        quoted = ": JSON does not allow single quotes, write the list with json.dumps" if cell.lstrip().startswith("['") else ""
        raise BadCell(f"{name}: not JSON{quoted}") from None
