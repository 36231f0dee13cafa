"""A trained model that answers raw questions: the best span over all pieces of a context, or no answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.artifacts.predictions import ModelOutput
from components.artifacts.training import ModelSpec
from components.model.support import pretrained
from components.model.tasks.question_answering.answers import canonical
from components.model.tasks.question_answering.features import Feature, best_span, features
from components.model.tasks.question_answering.loading import load_tokenizer

_AT_ONCE = 1_024  # rows whose tokens are held in memory

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SpanAnswer:
    """The best span of a context: what stands from character `start` to `end` - 1, "" where the context has no token.

    `margin` is the score of no answer less that of the span, both sums of two logits.
    """

    text: str
    start: int
    end: int
    score: float
    margin: float


class QuestionAnswerer:
    """A trained model that answers raw questions; the same code serves evaluation, the registry's model and `retune predict`."""

    def __init__(self, folder: Path, *, stride: int, longest: int, threshold: float | None) -> None:
        """Load model, tokenizer and retune.json from `folder`.

        `stride` and `longest` (of an answer) are in tokens; where the margin is above `threshold` there is no answer, and with None
        there always is one.

        Raises:
            NotThere: the folder or its retune.json is missing.
            BadModel: the folder holds no model that may be loaded.
        """
        self.spec = ModelSpec.read(folder)
        self._stride, self._longest, self._threshold = stride, longest, threshold
        self._tokenizer = load_tokenizer(folder)
        self._model = pretrained.load_model("AutoModelForQuestionAnswering", folder, head=False).eval()

    def answer(self, rows: pd.DataFrame, batch_size: int = 64) -> ModelOutput:
        """Answer the columns `question` and `context` of `rows` with the best span, as a JSON list; `[]` is no answer."""
        return ModelOutput.texts([canonical(self._texts(found)) for found in self.spans(rows, batch_size)])

    def spans(self, rows: pd.DataFrame, batch_size: int = 64) -> list[SpanAnswer]:
        """Return the best span of each row, whatever the threshold; `batch_size` counts pieces of contexts."""
        questions, contexts = rows["question"].tolist(), rows["context"].tolist()
        found: list[SpanAnswer] = []
        for begin in range(0, len(questions), _AT_ONCE):
            part = slice(begin, begin + _AT_ONCE)
            found += self._spans(questions[part], contexts[part], batch_size)
        return found

    def _texts(self, found: SpanAnswer) -> list[str]:
        left_out = self._threshold is not None and found.margin > self._threshold
        return [found.text] if found.text and not left_out else []

    def _spans(self, questions: Sequence[str], contexts: Sequence[str], batch_size: int) -> list[SpanAnswer]:
        pieces = features(questions, contexts, self._tokenizer, self.spec.max_length, self._stride)
        order = sorted(range(len(pieces)), key=lambda place: (len(pieces[place]), pieces[place].inputs["input_ids"]))
        best: list[tuple[int, int, float, float]] = [(0, 0, -np.inf, np.inf)] * len(pieces)
        for begin in range(0, len(order), batch_size):
            places = order[begin : begin + batch_size]
            starts, ends = self._logits([pieces[place] for place in places])
            for number, place in enumerate(places):
                best[place] = self._best(pieces[place], starts[number], ends[number])
        rows: list[list[int]] = [[] for _ in questions]
        for place, piece in enumerate(pieces):
            rows[piece.row].append(place)
        return [_choose([pieces[place] for place in own], [best[place] for place in own], contexts[row]) for row, own in enumerate(rows)]

    def _logits(self, pieces: list[Feature]) -> tuple[Floats, Floats]:
        """Return the logits of start and end, each (pieces, tokens of the longest)."""
        import torch

        inputs = self._tokenizer.pad({name: [piece.inputs[name] for piece in pieces] for name in pieces[0].inputs}, return_tensors="pt")
        with torch.inference_mode():
            output = self._model(**inputs)
        return output.start_logits.double().numpy(), output.end_logits.double().numpy()

    def _best(self, piece: Feature, start: Floats, end: Floats) -> tuple[int, int, float, float]:
        """Return the first and last context token of the best span, its score, and the score of no answer."""
        first, last, score = best_span(start[piece.first : piece.last], end[piece.first : piece.last], self._longest)
        return first, last, score, float(start[piece.nothing] + end[piece.nothing])


def _choose(pieces: list[Feature], best: list[tuple[int, int, float, float]], context: str) -> SpanAnswer:
    """Return the best span of all pieces; a context has no answer only if none of its pieces has one: the least score counts."""
    place = max(range(len(pieces)), key=lambda number: best[number][2])
    first, last, score, _ = best[place]
    if not len(pieces[place].offsets):
        return SpanAnswer("", 0, 0, 0.0, 0.0)
    begin, stop = int(pieces[place].offsets[first, 0]), int(pieces[place].offsets[last, 1])
    raw = context[begin:stop]  # some tokenizers count the space before a word to its token
    text = raw.strip()
    start = begin + len(raw) - len(raw.lstrip())
    return SpanAnswer(text, start, start + len(text), score, min(none for *_, none in best) - score)
