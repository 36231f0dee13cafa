"""Parts of the test set, and tables for the report page."""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from components.artifacts.predictions import Predictions
from components.artifacts.table import ReportTable
from components.model.tasks.question_answering import scores
from components.model.tasks.question_answering.answers import texts_of

_SHOWN = 30
_QUESTION_WORD = re.compile(r"\b(who|whom|whose|what|which|when|where|why|how)\b", re.IGNORECASE)
_ALIKE = {"whom": "who", "whose": "who"}
_ANSWER_LENGTHS = ((1, "1 word"), (3, "2 to 3 words"), (6, "4 to 6 words"))
_CONTEXT_LENGTHS = ((50, "up to 50 words"), (100, "51 to 100 words"), (200, "101 to 200 words"))


def slices(rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
    """Return, for each kind of part, the part of each row; the length of an answer is that of its shortest accepted text."""
    answers = [texts_of(label) for label in rows["label"]]
    shortest = [min((len(text.split()) for text in texts), default=0) for texts in answers]
    return {
        "answer": ["answerable" if texts else "unanswerable" for texts in answers],
        "answer_length": [_part(words, _ANSWER_LENGTHS, "7 words or more") if words else "" for words in shortest],
        "question_word": [question_word(question) for question in rows["question"]],
        "context_length": [_part(len(context.split()), _CONTEXT_LENGTHS, "more than 200 words") for context in rows["context"]],
    }


def question_word(question: str) -> str:
    """Return the first English question word, in lower case; "other" where there is none."""
    found = _QUESTION_WORD.search(question)
    word = found.group().lower() if found else "other"
    return _ALIKE.get(word, word)


def tables(rows: pd.DataFrame, found: Predictions, unanswerable: bool) -> tuple[ReportTable, ...]:
    """Return the table of the worst answers and, with `unanswerable`, that of answers given and expected."""
    expected, predicted = ([texts_of(label) for label in labels.tolist()] for labels in (found.expected, found.predicted))
    scored = [(scores.f1("".join(given[:1]), texts), place) for place, (given, texts) in enumerate(zip(predicted, expected, strict=True))]
    worst = [(place, f1) for f1, place in sorted(scored)[:_SHOWN] if f1 < 1]
    questions = rows["question"].tolist()
    shown = tuple((questions[place], _said(expected[place]), _said(predicted[place]), round(f1, 3)) for place, f1 in worst)
    difference = ReportTable(
        title="Answers farthest from what was expected", columns=("question", "expected", "answered", "F1"), rows=shown
    )
    return (difference, _given(expected, predicted)) if unanswerable else (difference,)


def _given(expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> ReportTable:
    counted = {(bool(texts), bool(given)): 0 for texts in ([], [""]) for given in ([], [""])}
    for texts, given in zip(expected, predicted, strict=True):
        counted[bool(texts), bool(given)] += 1
    names = {True: "has an answer", False: "has no answer"}
    rows = tuple((names[has], counted[has, True], counted[has, False]) for has in (True, False))
    return ReportTable(title="Whether there is an answer", columns=("the question", "answered", "left unanswered"), rows=rows)


def _said(texts: Sequence[str]) -> str:
    return " / ".join(texts) or "no answer"


def _part(number: int, parts: Sequence[tuple[int, str]], rest: str) -> str:
    return next((name for most, name in parts if number <= most), rest)
