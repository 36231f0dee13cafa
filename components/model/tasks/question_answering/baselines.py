"""What a reader without a model answers: a sentence of the context, or what is new in it."""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.artifacts.predictions import ModelOutput
from components.model.tasks.question_answering import scores
from components.model.tasks.question_answering.answers import canonical, texts_of

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

NAMES = ("sentence", "overlap", "remainder")

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|[\r\n]+")
_WORD = re.compile(r"\w(?:[\w.'’-]*\w)?")


def predict(train: pd.DataFrame, test: pd.DataFrame, unanswerable: bool) -> Mapping[str, ModelOutput]:
    """Return what each of `NAMES` answers to `test`.

    `sentence` is the first sentence of the context; `overlap` the one most like the question, by the cosine of TF-IDF fitted on the
    contexts of `train`; `remainder` the longest run of words of that sentence that the question does not say. Where questions may be
    `unanswerable`, the last two leave those unanswered whose sentence is less like the question than a threshold, the best on `train`.
    """
    closest = ClosestAnswer(train["context"].tolist())
    answers = {"sentence": [first_sentence(context) for context in test["context"]]}
    learnt, asked = closest.sentences(train), closest.sentences(test)
    for name, shape in (("overlap", _whole), ("remainder", remainder)):
        threshold = _threshold(
            train, [shape(text, question) for (text, _), question in zip(learnt, train["question"], strict=True)], learnt
        )
        limit = threshold if unanswerable else np.inf
        pairs = zip(asked, test["question"], strict=True)
        answers[name] = [shape(text, question) if -likeness <= limit else "" for (text, likeness), question in pairs]
    return {name: ModelOutput.texts([canonical([text] if text else []) for text in texts]) for name, texts in answers.items()}


def sentences(context: str) -> list[str]:
    """Return the sentences of a text, parted at full stops, question and exclamation marks, and line ends."""
    return [part.strip() for part in _SENTENCE_END.split(context) if part.strip()]


def first_sentence(context: str) -> str:
    """Return the first sentence, "" where there is none."""
    return next(iter(sentences(context)), "")


def remainder(sentence: str, question: str) -> str:
    """Return the longest run of words of `sentence` that `question` does not have; the sentence where it has them all."""
    known = {word.casefold() for word in _WORD.findall(question)}
    runs: list[list[re.Match[str]]] = [[]]
    for word in _WORD.finditer(sentence):
        if word.group().casefold() in known:
            runs.append([])
        else:
            runs[-1].append(word)
    longest = max(runs, key=len)
    return sentence[longest[0].start() : longest[-1].end()] if longest else sentence


class ClosestAnswer:
    """Finds the sentence of a context that is most like a question; fitted on contexts."""

    def __init__(self, contexts: Sequence[str]) -> None:
        """Fit TF-IDF on the sentences of the distinct `contexts`."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer: Any = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
        learnt = [sentence for context in sorted(set(contexts)) for sentence in sentences(context)]
        self._fitted = any(map(self._vectorizer.build_analyzer(), learnt))
        if self._fitted:
            self._vectorizer.fit(learnt)
        else:
            log.warning("the training contexts have no words: the overlap baseline answers with first sentences")

    def sentences(self, rows: pd.DataFrame) -> list[tuple[str, float]]:
        """Return the sentence most like the question, and the cosine, of each row; of equal ones the first, ("", 0) where is none."""
        if not self._fitted:
            return [(first_sentence(context), 0.0) for context in rows["context"]]
        known: dict[str, tuple[list[str], Any]] = {}
        questions = self._vectorizer.transform(rows["question"])
        found = []
        for place, context in enumerate(rows["context"]):
            if context not in known:
                parts = sentences(context)
                known[context] = (parts, self._vectorizer.transform(parts) if parts else None)
            parts, vectors = known[context]
            likeness = np.asarray((vectors @ questions[place].T).todense()).ravel() if parts else np.zeros(1)
            best = int(likeness.argmax())
            found.append((parts[best] if parts else "", float(likeness[best])))
        return found


def _whole(sentence: str, question: str) -> str:
    return sentence


def _threshold(rows: pd.DataFrame, texts: Sequence[str], found: Sequence[tuple[str, float]]) -> float:
    """Return the negative likeness above which leaving `rows` unanswered gives the best F1."""
    expected = [texts_of(label) for label in rows["label"]]
    answered = np.array([scores.f1(text, answers) for text, answers in zip(texts, expected, strict=True)])
    unanswered = np.array([scores.f1("", answers) for answers in expected])
    return scores.best_threshold(-np.array([likeness for _, likeness in found]), answered, unanswered)
