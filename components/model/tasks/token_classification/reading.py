"""Cells as tokens, tags and spans, and words with their places in a raw text. Pure functions; a bad cell raises `Bad` with the reason."""

import json
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from components.model.tasks.token_classification.schemes import Entity

Span = tuple[int, int, str]
"""First character, character after the last, label."""

_UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF))
_UNSPACED_PLANES = (0x20000, 0x3FFFF)


class Bad(ValueError):
    """A cell that cannot be read; the message is the reason that the row is quarantined with."""


def texts_of(cell: str, name: str) -> list[str]:
    """Return the texts of a cell: a JSON list where it begins with [ and ends with ], else what white space parts.

    Raises:
        Bad: it looks like a list and is none of texts, or is an empty one.
    """
    cell = cell.strip()
    if not (cell.startswith("[") and cell.endswith("]")) and not cell.startswith('["'):
        return cell.split()
    found = _json(cell, name)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise Bad(f"{name}: a list of something other than texts")
    if not found:
        raise Bad(f"{name}: an empty list")
    return found


def sentence(tokens: str, tags: str) -> tuple[list[str], list[str]]:
    """Return the tokens and the tags of a row, as many of the one as of the other.

    Raises:
        Bad: a cell cannot be read, their numbers differ, or a tag is blank or has white space in it.
    """
    words, found = texts_of(tokens, "tokens"), texts_of(tags, "tags")
    if len(words) != len(found):
        raise Bad("the number of tags is not the number of tokens")
    if any(tag.split() != [tag] for tag in found):
        raise Bad("a tag is blank or has white space in it")
    return words, found


def spans_of(cell: str) -> list[Span]:
    """Return the spans of a cell, a JSON list of [start, end, label] or of objects with these keys, as they are written.

    Raises:
        Bad: it is something else.
    """
    found = _json(cell, "spans")
    if not isinstance(found, list):
        raise Bad("spans: not a list")
    return [_span(each) for each in found]


def renamed_spans(cell: str, rename: Callable[[str], str]) -> str:
    """Return the spans of a cell with `rename` of each label; what is no span stays as it is written.

    Raises:
        Bad: it is not a JSON list.
    """
    found = _json(cell, "spans")
    if not isinstance(found, list):
        raise Bad("spans: not a list")
    new = [_renamed(each, rename) for each in found]
    return cell if new == found else json.dumps(new, ensure_ascii=False)


def _renamed(span: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(span, dict) and isinstance(span.get("label"), str):
        return {**span, "label": rename(span["label"])}
    if isinstance(span, list) and len(span) == 3 and isinstance(span[2], str):
        return [*span[:2], rename(span[2])]
    return span


def placed(text: str, spans: Sequence[Span], words: Sequence[tuple[int, int]]) -> list[Entity]:
    """Return the spans of `text` as entities over its `words`; white space at a span's ends does not count.

    Raises:
        Bad: a span is outside the text, blank, begins or ends within a word, or overlaps another.
    """
    begins = {begin: place for place, (begin, _) in enumerate(words)}
    ends = {end: place + 1 for place, (_, end) in enumerate(words)}
    found: list[Entity] = []
    for start, end, label in spans:
        if not 0 <= start < end <= len(text):
            raise Bad("a span is empty or outside the text")
        inner = text[start:end]
        if not inner.strip():
            raise Bad("a span holds nothing but white space")
        first, last = start + len(inner) - len(inner.lstrip()), end - len(inner) + len(inner.rstrip())
        if first not in begins or last not in ends:
            raise Bad("a span begins or ends within a word")
        found.append((begins[first], ends[last], label))
    found.sort()
    if any(one[1] > other[0] for one, other in pairwise(found)):
        raise Bad("spans overlap")
    return found


def words_in(text: str) -> list[tuple[int, int]]:
    """Return where the words of a raw text stand: (first character, character after the last), in order.

    A word is a run of letters, digits and marks; any other visible character is a word of its own, and so is each letter, with its
    marks, of a script that puts no spaces between words. White space and characters without a shape are in no word.
    """
    found: list[tuple[int, int]] = []
    open_end = False  # whether the last word may grow by a letter
    for place, character in enumerate(text):
        kind = unicodedata.category(character)
        if kind[0] == "Z" or kind in ("Cc", "Cf"):
            continue
        letter = kind[0] in "LN" and not _unspaced(character)
        if found and found[-1][1] == place and (kind[0] == "M" or (letter and open_end)):
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
            open_end = letter
    return found


def as_spans(found: Iterable[Entity], words: Sequence[tuple[int, int]]) -> list[Span]:
    """Return entities over `words` as spans of characters."""
    return [(words[begin][0], words[end - 1][1], label) for begin, end, label in found]


def span_text(spans: Iterable[Span]) -> str:
    """Return spans as one text: a JSON list of [start, end, label], sorted; equal spans give equal texts."""
    return json.dumps(sorted(map(list, spans)), ensure_ascii=False)


def _span(found: Any) -> Span:
    try:
        start, end, label = (found["start"], found["end"], found["label"]) if isinstance(found, dict) else found
    except (KeyError, TypeError, ValueError):
        raise Bad("spans: neither [start, end, label] nor an object with these keys") from None
    if type(start) is not int or type(end) is not int or not isinstance(label, str) or not label.strip():
        raise Bad("spans: start and end must be whole numbers, and label a text")
    return start, end, label.strip()


def _json(cell: str, name: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        quoted = ": single quotes are none of JSON's, write the list with json.dumps" if cell.lstrip().startswith("['") else ""
        raise Bad(f"{name}: not JSON{quoted}") from None


def _unspaced(character: str) -> bool:
    code = ord(character)
    if code < _UNSPACED[0][0]:
        return False
    return any(low <= code <= high for low, high in _UNSPACED) or _UNSPACED_PLANES[0] <= code <= _UNSPACED_PLANES[1]
