"""The cell `answers`: where in the context each accepted answer stands, or what is wrong with it.

Places are counted in characters (code points) from 0, as in SQuAD. Reasons name no row's own values, so that quarantine can count them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NOT_JSON = "answers is not JSON"
NOT_SQUAD = 'answers is not in the form of SQuAD: {"text": [...], "answer_start": [...]} or [{"text": ..., "answer_start": ...}]'
UNEVEN = "answers has another number of text than of answer_start"
BLANK = "answers has an empty text"
ABSENT = "the answer is not in the context"
ASTRAY = "answer_start does not point at the answer: it stands elsewhere in the context (count characters from 0, not bytes)"
AMBIGUOUS = "the answer stands more than once in the context, and there is no answer_start"
BOTH = "is_impossible is true, and there are answers"
NONE = "no answer, and task_options.unanswerable is false"

_TRUE = ("true", "1", "yes")


class BadAnswers(ValueError):
    """What is wrong with a cell; the message is the reason for quarantine."""


@dataclass(frozen=True)
class Span:
    """A stretch of the context that answers the question: `text` is what stands from `start` on, without space around it."""

    text: str
    start: int

    @property
    def end(self) -> int:
        """The place after the last character."""
        return self.start + len(self.text)


def spans(cell: str, context: str) -> tuple[Span, ...]:
    """Return the accepted answers of a cell in the order of the annotators; none for a question without an answer.

    Beside the two forms of SQuAD, texts alone will do where each stands once in the context: ["Denver"].

    Raises:
        BadAnswers: the cell cannot be read, or does not fit the context.
    """
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        raise BadAnswers(NOT_JSON) from None
    impossible = isinstance(value, Mapping) and is_true(value.get("is_impossible"))
    found = tuple(_span(text, start, context) for text, start in _pairs(value))
    if impossible and found:
        raise BadAnswers(BOTH)
    return found


def is_true(value: Any) -> bool:
    """Return whether the value of `is_impossible`, in JSON or as the text of a cell, says yes."""
    return value is True or str(value).strip().lower() in _TRUE


def canonical(texts: Sequence[str]) -> str:
    """Return answers as the one text that `label` and predictions hold: a JSON list, sorted, each text once; `[]` for no answer."""
    return json.dumps(sorted(set(texts)), ensure_ascii=False)


def texts_of(label: str) -> list[str]:
    """Return the answers that `canonical` wrote."""
    return [str(text) for text in json.loads(label)]


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    """Return text and start of each answer; the start is None where it is not told."""
    if isinstance(value, Mapping):
        if "text" not in value and (not value or is_true(value.get("is_impossible"))):
            return []
        texts, starts = (_listed(value.get(name)) for name in ("text", "answer_start"))
        if texts is None:
            raise BadAnswers(NOT_SQUAD)
        if starts is not None and len(starts) != len(texts):
            raise BadAnswers(UNEVEN)
        return list(zip(texts, starts or [None] * len(texts), strict=True))
    if not isinstance(value, list):
        raise BadAnswers(NOT_SQUAD)
    if not all(isinstance(one, str) or (isinstance(one, Mapping) and "text" in one) for one in value):
        raise BadAnswers(NOT_SQUAD)
    return [(one, None) if isinstance(one, str) else (one["text"], one.get("answer_start")) for one in value]


def _listed(value: Any) -> list[Any] | None:
    return value if value is None or isinstance(value, list) else [value]


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
        place = context.find(text)
    else:
        place = _place(start)
    if place < 0 or not context.startswith(text, place):
        raise BadAnswers(ASTRAY)
    return Span(text.strip(), place + len(text) - len(text.lstrip()))


def _place(start: Any) -> int:
    """Return a place given as 7, 7.0 or "7"."""
    try:
        number = math.nan if isinstance(start, bool) else float(start)
    except (TypeError, ValueError, OverflowError):
        raise BadAnswers(NOT_SQUAD) from None
    if not number.is_integer():
        raise BadAnswers(NOT_SQUAD)
    return int(number)
