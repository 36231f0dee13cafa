"""The predictor of question answering: the best span over all pieces of a context, or no answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from components.artifacts.predictions import ModelOutput
from components.artifacts.training import ModelSpec
from components.model import tasks
from components.model.support import pretrained
from components.model.support.batches import in_batches
from components.model.tasks.question_answering.answers import canonical
from components.model.tasks.question_answering.features import Feature, best_span, features, load_tokenizer

_CHUNK = 1_024  # rows tokenized at a time


@dataclass(frozen=True)
class SpanAnswer:
    """The best span of a context, characters `start` to `end` - 1; "" if the context has no tokens.

    `margin` is the no-answer score minus the span score, both sums of two logits.
    """

    text: str
    start: int
    end: int
    score: float
    margin: float


class QuestionAnswerer:
    """A trained model for question answering."""

    def __init__(self, folder: Path) -> None:
        """Load model, tokenizer and retune.json from `folder`; raise NotFound or BadModel. An unset threshold is 0."""
        self.spec = ModelSpec.read(folder)
        self._options = tasks.of(self.spec).options
        self._tokenizer = load_tokenizer(folder)
        self._model = pretrained.load_model("AutoModelForQuestionAnswering", folder, head=False).eval()

    def answer(self, rows: pd.DataFrame, batch_size: int = 64) -> ModelOutput:
        """Predict the best span for `question` and `context` of `rows` as a JSON list; `[]` is no answer."""
        limit = (self._options.no_answer_threshold or 0.0) if self._options.unanswerable else np.inf
        spans = self.spans(rows, batch_size)
        return ModelOutput.texts([canonical([span.text] if span.text and span.margin <= limit else []) for span in spans])

    def spans(self, rows: pd.DataFrame, batch_size: int = 64) -> list[SpanAnswer]:
        """Return the best span of each row, ignoring the threshold; `batch_size` counts pieces."""
        questions, contexts = rows["question"].tolist(), rows["context"].tolist()
        spans: list[SpanAnswer] = []
        for begin in range(0, len(questions), _CHUNK):
            part = slice(begin, begin + _CHUNK)
            spans += self._spans(questions[part], contexts[part], batch_size)
        return spans

    def _spans(self, questions: Sequence[str], contexts: Sequence[str], batch_size: int) -> list[SpanAnswer]:
        pieces = features(questions, contexts, self._tokenizer, self.spec.max_length, self._options.stride)
        best = in_batches(pieces, batch_size, lambda piece: (len(piece), piece.inputs["input_ids"]), self._best)
        rows: list[list[int]] = [[] for _ in questions]
        for index, piece in enumerate(pieces):
            rows[piece.row].append(index)
        return [
            _choose([pieces[index] for index in row_pieces], [best[index] for index in row_pieces], contexts[row])
            for row, row_pieces in enumerate(rows)
        ]

    def _best(self, pieces: list[Feature]) -> list[tuple[int, int, float, float]]:
        """Return for each piece the first and last context token of the best span, its score, and the no-answer score."""
        import torch

        inputs = self._tokenizer.pad({name: [piece.inputs[name] for piece in pieces] for name in pieces[0].inputs}, return_tensors="pt")
        with torch.inference_mode():
            output = self._model(**inputs)
        best = []
        for piece, start, end in zip(pieces, output.start_logits.double().numpy(), output.end_logits.double().numpy(), strict=True):
            first, last = piece.first, piece.last
            span = best_span(start[first:last], end[first:last], self._options.max_answer_tokens)
            best.append((*span, float(start[piece.no_answer] + end[piece.no_answer])))
        return best


def _choose(pieces: list[Feature], best: list[tuple[int, int, float, float]], context: str) -> SpanAnswer:
    """Return the best span of all pieces; the no-answer score of a context is the minimum over its pieces."""
    index = max(range(len(pieces)), key=lambda candidate: best[candidate][2])
    first, last, score, _ = best[index]
    if not len(pieces[index].offsets):
        return SpanAnswer("", 0, 0, 0.0, 0.0)
    begin, stop = int(pieces[index].offsets[first, 0]), int(pieces[index].offsets[last, 1])
    raw = context[begin:stop]  # some tokenizers include the space before a word in its token
    text = raw.strip()
    start = begin + len(raw) - len(raw.lstrip())
    return SpanAnswer(text, start, start + len(text), score, min(no_answer for *_, no_answer in best) - score)
