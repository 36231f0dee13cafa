"""Slices and report tables of question answering."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from components.artifacts.predictions import Predictions
from components.artifacts.table import ReportTable
from components.core.text import split_words
from components.model.tasks.question_answering import scores
from components.model.tasks.question_answering.answers import texts_of

_SHOWN = 30
_QUESTION_WORD = re.compile(r"\b(who(?:m|se)?|what|which|when|where|why|how)\b", re.IGNORECASE)
_ANSWER_LENGTHS = ((1, "1 word"), (3, "2 to 3 words"), (6, "4 to 6 words"))
_CONTEXT_LENGTHS = ((50, "up to 50 words"), (100, "51 to 100 words"), (200, "101 to 200 words"))


def slices(rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
    """Return the slice of each row by column; the answer length is that of the shortest accepted text."""
    answers = [texts_of(label) for label in rows["label"]]
    shortest = [min((len(split_words(text)) for text in texts), default=0) for texts in answers]
    return {
        "answer": ["answerable" if texts else "unanswerable" for texts in answers],
        "answer_length": [_part(words, _ANSWER_LENGTHS, "7 words or more") if words else "" for words in shortest],
        "question_word": [question_word(question) for question in rows["question"]],
        "context_length": [_part(len(split_words(context)), _CONTEXT_LENGTHS, "more than 200 words") for context in rows["context"]],
    }


def question_word(question: str) -> str:
    """Return the first English question word in lower case, else "other"."""
    match = _QUESTION_WORD.search(question)
    word = match.group().lower() if match else "other"
    return "who" if word.startswith("who") else word


def tables(rows: pd.DataFrame, predictions: Predictions, unanswerable: bool) -> tuple[ReportTable, ...]:
    """Return the worst answers and, with `unanswerable`, the counts of answered and unanswered questions."""
    expected, predicted = ([texts_of(label) for label in labels.tolist()] for labels in (predictions.expected, predictions.predicted))
    scored = [(scores.f1("".join(answer[:1]), texts), index) for index, (answer, texts) in enumerate(zip(predicted, expected, strict=True))]
    worst = [(index, f1) for f1, index in sorted(scored)[:_SHOWN] if f1 < 1]
    questions = rows["question"].tolist()
    shown = tuple((questions[index], _shown(expected[index]), _shown(predicted[index]), round(f1, 3)) for index, f1 in worst)
    worst_answers = ReportTable(title="Worst answers", columns=("question", "expected", "answered", "F1"), rows=shown)
    return (worst_answers, _answered(expected, predicted)) if unanswerable else (worst_answers,)


def _answered(expected: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> ReportTable:
    counts = Counter((bool(texts), bool(answer)) for texts, answer in zip(expected, predicted, strict=True))
    names = {True: "has an answer", False: "has no answer"}
    rows = tuple((names[has], counts[has, True], counts[has, False]) for has in (True, False))
    return ReportTable(title="Whether there is an answer", columns=("the question", "answered", "left unanswered"), rows=rows)


def _shown(texts: Sequence[str]) -> str:
    return " / ".join(texts) or "no answer"


def _part(number: int, parts: Sequence[tuple[int, str]], rest: str) -> str:
    return next((name for most, name in parts if number <= most), rest)
