"""Tokenization of question and context; a long context becomes several overlapping pieces, each with the full question."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.errors import BadParams
from components.model.support import pretrained
from components.model.support.control_tokens import plain
from components.model.tasks.question_answering.answers import Span

Ints = npt.NDArray[np.int64]

_MIN_TOKENS = 4  # of question and context together


@dataclass(frozen=True)
class Feature:
    """A piece of the row `row` with the model `inputs` by name, each (tokens,).

    Tokens `first` to `last` - 1 belong to the context; `offsets` (last - first, 2) are their character ranges in the context. `covers` is
    the character range of this piece, including characters without tokens. `no_answer` is the position of the no-answer token: the
    classification token if there is one, else the first token.
    """

    row: int
    inputs: dict[str, list[int]]
    no_answer: int
    first: int
    last: int
    offsets: Ints
    covers: tuple[int, int]

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])

    def locate(self, answer: Span) -> tuple[int, int] | None:
        """Return the first and last token of `answer`; None if this piece does not contain all of it, or it has no token."""
        inside = self.covers[0] <= answer.start and answer.end <= self.covers[1]
        touched = np.flatnonzero((self.offsets[:, 1] > answer.start) & (self.offsets[:, 0] < answer.end)) if inside else np.array([])
        return (self.first + int(touched[0]), self.first + int(touched[-1])) if len(touched) else None


def load_tokenizer(base: Path) -> Any:
    """Load a fast tokenizer that pads and truncates on the right; raise BadModel if it is missing, or has no character offsets."""
    tokenizer = pretrained.load_tokenizer(base, fast="has no character offsets")
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    return tokenizer


def features(questions: Sequence[str], contexts: Sequence[str], tokenizer: Any, max_length: int, stride: int) -> list[Feature]:
    """Return the pieces of each row in order, of at most `max_length` tokens with an overlap of `stride`.

    The question is truncated to half of the non-special tokens; `stride` is limited to a third. Special tokens typed in a text are text.
    Raise BadParams if `max_length` is too small.
    """
    tokenizer = plain(tokenizer)
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
    if room < _MIN_TOKENS:
        needed = max_length - room + _MIN_TOKENS
        raise BadParams(f"params.yaml: preprocess.max_length is {max_length}, expected at least {needed} for a question with its context")
    if not len(questions):
        return []
    encoded = tokenizer(
        shortened(questions, tokenizer, room // 2),
        list(contexts),
        truncation="only_second",
        max_length=max_length,
        stride=min(stride, room // 3),
        padding=False,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
    )
    rows = encoded["overflow_to_sample_mapping"]
    names = sorted(set(encoded.keys()) - {"overflow_to_sample_mapping", "offset_mapping"})
    pieces = []
    for index, row in enumerate(rows):
        inputs = {name: list(encoded[name][index]) for name in names}
        context_tokens = [token for token, part in enumerate(encoded.sequence_ids(index)) if part == 1]
        first, last = (context_tokens[0], context_tokens[-1] + 1) if context_tokens else (0, 0)
        offsets: Ints = np.array(encoded["offset_mapping"][index][first:last], dtype=np.int64).reshape(-1, 2)
        begins = not context_tokens or index == 0 or rows[index - 1] != row
        ends = not context_tokens or index + 1 == len(rows) or rows[index + 1] != row
        covers = (0 if begins else int(offsets[0, 0]), len(contexts[row]) if ends else int(offsets[-1, 1]))
        no_answer = inputs["input_ids"].index(tokenizer.cls_token_id) if tokenizer.cls_token_id in inputs["input_ids"] else 0
        pieces.append(Feature(row, inputs, no_answer, first, last, offsets, covers))
    return pieces


def shortened(questions: Sequence[str], tokenizer: Any, at_most: int) -> list[str]:
    """Truncate each question to `at_most` tokens."""
    encoded = tokenizer(
        list(questions), add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, truncation=False, verbose=False
    )
    return [
        text if len(marks) <= at_most else text[: marks[at_most - 1][1]]
        for text, marks in zip(questions, encoded["offset_mapping"], strict=True)
    ]


def best_span(start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], max_tokens: int) -> tuple[int, int, float]:
    """Return first token, last token and score of the best span of up to `max_tokens`; `start` and `end` are logits (tokens,).

    On ties the first span wins. The score is the sum of both logits (Devlin et al. 2019, BERT, 4.2).
    """
    best = (0, 0, -np.inf)
    for width in range(min(max_tokens, len(start))):
        sums = start[: len(start) - width] + end[width:]
        first = int(sums.argmax())
        if (sums[first], -first) > (best[2], -best[0]):
            best = (first, first + width, float(sums[first]))
    return best
