"""Parse the cell `answers`: the position of each accepted answer in the context, or the error.

Positions are in characters (code points) from 0, as in SQuAD. Errors do not contain values of the row, so that the quarantine can count
them.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.core.text import normalise

NOT_JSON = "answers is not JSON"
NOT_SQUAD = 'answers is not in SQuAD format: {"text": [...], "answer_start": [...]} or [{"text": ..., "answer_start": ...}]'
UNEVEN = "answers has different numbers of text and answer_start"
BLANK = "answers contains an empty text"
ABSENT = "the answer is not in the context"
MISPLACED = "answer_start does not point to the answer, which is elsewhere in the context (count characters from 0, not bytes)"
AMBIGUOUS = "the answer occurs more than once in the context, and answer_start is missing"
BOTH = "is_impossible is true, but there are answers"
NONE = "no answer, but task_options.unanswerable is false"

_TRUE = ("true", "1", "yes")


class BadAnswers(ValueError):
    """An invalid cell; the message is the quarantine reason."""


@dataclass(frozen=True)
class Span:
    """An answer in the context: `text` from `start` on, without surrounding white space."""

    text: str
    start: int

    @property
    def end(self) -> int:
        """The index after the last character."""
        return self.start + len(self.text)


def spans(cell: str, context: str) -> tuple[Span, ...]:
    """Return the accepted answers of a cell in the order of the annotators; empty for an unanswerable question.

    In addition to the two SQuAD formats, a list of texts is accepted if each occurs once in the context: ["Denver"].
    Raise BadAnswers if the cell cannot be parsed, or does not match the context.
    """
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        raise BadAnswers(NOT_JSON) from None
    impossible = isinstance(value, Mapping) and is_true(value.get("is_impossible"))
    answers = tuple(_span(text, start, context) for text, start in _pairs(value))
    if impossible and answers:
        raise BadAnswers(BOTH)
    return answers


def is_true(value: Any) -> bool:
    """Whether the value of `is_impossible`, from JSON or a text cell, is true."""
    return value is True or str(value).strip().lower() in _TRUE


def canonical(texts: Sequence[str]) -> str:
    """Return answers in the format of `label`: a sorted JSON list of unique texts; `[]` for no answer."""
    return json.dumps(sorted(set(texts)), ensure_ascii=False)


def texts_of(label: str) -> list[str]:
    """Parse a label written by `canonical`."""
    return [str(text) for text in json.loads(label)]


def group_of(context: str) -> str:
    """Return the group of all questions about `context`: 16 hex digits of the sha256, independent of Unicode form and spaces."""
    return hashlib.sha256(normalise(context, "NFKC").encode()).hexdigest()[:16]


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    """Return text and start of each answer; start None if it is not given."""
    if isinstance(value, Mapping):
        if "text" not in value and (not value or is_true(value.get("is_impossible"))):
            return []
        cells = (value.get(name) for name in ("text", "answer_start"))
        texts, starts = (cell if cell is None or isinstance(cell, list) else [cell] for cell in cells)
        if texts is None:
            raise BadAnswers(NOT_SQUAD)
        if starts is not None and len(starts) != len(texts):
            raise BadAnswers(UNEVEN)
        return list(zip(texts, starts or [None] * len(texts), strict=True))
    if not isinstance(value, list):
        raise BadAnswers(NOT_SQUAD)
    if not all(isinstance(item, str) or (isinstance(item, Mapping) and "text" in item) for item in value):
        raise BadAnswers(NOT_SQUAD)
    return [(item, None) if isinstance(item, str) else (item["text"], item.get("answer_start")) for item in value]


def _span(text: Any, start: Any, context: str) -> Span:
    if not isinstance(text, str):
        raise BadAnswers(NOT_SQUAD)
    if not text.strip():
        raise BadAnswers(BLANK)
    if text not in context:
        raise BadAnswers(ABSENT)
    if start is None:
        if context.find(text) != context.rfind(text):
            raise BadAnswers(AMBIGUOUS)
        position = context.find(text)
    else:
        position = _position(start)
    if position < 0 or not context.startswith(text, position):
        raise BadAnswers(MISPLACED)
    return Span(text.strip(), position + len(text) - len(text.lstrip()))


def _position(start: Any) -> int:
    """Return a position given as 7, 7.0 or "7"."""
    try:
        number = math.nan if isinstance(start, bool) else float(start)
    except (TypeError, ValueError, OverflowError):
        raise BadAnswers(NOT_SQUAD) from None
    if not number.is_integer():
        raise BadAnswers(NOT_SQUAD)
    return int(number)
