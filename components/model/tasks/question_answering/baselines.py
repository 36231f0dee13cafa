"""The baselines: a sentence of the context, or a part of it."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from components.artifacts.predictions import ModelOutput
from components.model.tasks import Baseline
from components.model.tasks.question_answering import scores
from components.model.tasks.question_answering.answers import canonical, texts_of

log = logging.getLogger(__name__)

NAMES = ("sentence", "overlap", "remainder")

Extract = Callable[[str, str], str]
"""Maps a sentence and the question to an answer."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|[\r\n]+")
_WORD = re.compile(r"\w(?:[\w.'’-]*\w)?")


def fit(train: pd.DataFrame, unanswerable: bool) -> Mapping[str, Baseline]:
    """Return each of `NAMES`, fitted to `train`.

    `sentence` is the first sentence of the context; `overlap` the one most similar to the question (cosine of TF-IDF fitted on the
    contexts of `train`); `remainder` the longest run of words of that sentence that are not in the question. If questions may be
    `unanswerable`, the last two predict no answer below a similarity threshold fitted on `train`.
    """
    closest = ClosestAnswer(train["context"].tolist())
    train_matches = closest.sentences(train)

    def similar(extract: Extract) -> Baseline:
        texts = [extract(text, question) for (text, _), question in zip(train_matches, train["question"], strict=True)]
        limit = _threshold(train, texts, train_matches) if unanswerable else np.inf

        def predict(rows: pd.DataFrame) -> ModelOutput:
            pairs = zip(closest.sentences(rows), rows["question"], strict=True)
            return _output([extract(text, question) if -similarity <= limit else "" for (text, similarity), question in pairs])

        return predict

    return {
        "sentence": lambda rows: _output([first_sentence(context) for context in rows["context"]]),
        "overlap": similar(lambda sentence, _: sentence),
        "remainder": similar(remainder),
    }


def _output(texts: Sequence[str]) -> ModelOutput:
    return ModelOutput.texts([canonical([text] if text else []) for text in texts])


def sentences(context: str) -> list[str]:
    """Split a text into sentences at full stops, question and exclamation marks, and line breaks."""
    return [part.strip() for part in _SENTENCE_END.split(context) if part.strip()]


def first_sentence(context: str) -> str:
    """Return the first sentence, or ""."""
    return next(iter(sentences(context)), "")


def remainder(sentence: str, question: str) -> str:
    """Return the longest run of words of `sentence` that are not in `question`; the sentence if all are."""
    question_words = {word.casefold() for word in _WORD.findall(question)}
    runs: list[list[re.Match[str]]] = [[]]
    for word in _WORD.finditer(sentence):
        if word.group().casefold() in question_words:
            runs.append([])
        else:
            runs[-1].append(word)
    longest = max(runs, key=len)
    return sentence[longest[0].start() : longest[-1].end()] if longest else sentence


class ClosestAnswer:
    """Finds the sentence of a context that is most similar to a question."""

    def __init__(self, contexts: Sequence[str]) -> None:
        """Fit TF-IDF on the sentences of the distinct `contexts`."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer: Any = TfidfVectorizer(sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
        texts = [sentence for context in sorted(set(contexts)) for sentence in sentences(context)]
        self._fitted = any(map(self._vectorizer.build_analyzer(), texts))
        if self._fitted:
            self._vectorizer.fit(texts)
        else:
            log.warning("the training contexts have no words: the overlap baseline predicts the first sentence")

    def sentences(self, rows: pd.DataFrame) -> list[tuple[str, float]]:
        """Return the most similar sentence and its cosine for each row; on ties the first, ("", 0) without a sentence."""
        if not self._fitted:
            return [(first_sentence(context), 0.0) for context in rows["context"]]
        cache: dict[str, tuple[list[str], Any]] = {}
        questions = self._vectorizer.transform(rows["question"])
        matches = []
        for index, context in enumerate(rows["context"]):
            if context not in cache:
                parts = sentences(context)
                cache[context] = (parts, self._vectorizer.transform(parts) if parts else None)
            parts, vectors = cache[context]
            similarity = np.asarray((vectors @ questions[index].T).todense()).ravel() if parts else np.zeros(1)
            best = int(similarity.argmax())
            matches.append((parts[best] if parts else "", float(similarity[best])))
        return matches


def _threshold(rows: pd.DataFrame, texts: Sequence[str], matches: Sequence[tuple[str, float]]) -> float:
    """Return the negative similarity above which predicting no answer gives the best F1 on `rows`."""
    expected = [texts_of(label) for label in rows["label"]]
    answered = np.array([scores.f1(text, answers) for text, answers in zip(texts, expected, strict=True)])
    unanswered = np.array([scores.f1("", answers) for answers in expected])
    return scores.best_threshold(-np.array([similarity for _, similarity in matches]), answered, unanswered)
