"""Question and context as the model reads them: a long context becomes several pieces that overlap, each behind the whole question."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from components.core.errors import BadParams
from components.model.support.control_tokens import plain
from components.model.tasks.question_answering.answers import Span

Ints = npt.NDArray[np.int64]

_LEAST = 4  # tokens that question and context need together


@dataclass(frozen=True)
class Feature:
    """A piece of the row `row`: `inputs` are the model's, by name, each (tokens,).

    Tokens `first` to `last` - 1 are those of the context; `offsets` (last - first, 2) are the characters of the context that each
    stands for. `covers` are the characters that are wholly in this piece, those that make no token included. `nothing` is the
    token that stands for no answer: the classification token, wherever the model has it, or the first one.
    """

    row: int
    inputs: dict[str, list[int]]
    nothing: int
    first: int
    last: int
    offsets: Ints
    covers: tuple[int, int]

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])

    def locate(self, answer: Span) -> tuple[int, int] | None:
        """Return the first and the last token of `answer`; None where it is not wholly in this piece, or makes no token."""
        inside = self.covers[0] <= answer.start and answer.end <= self.covers[1]
        touched = np.flatnonzero((self.offsets[:, 1] > answer.start) & (self.offsets[:, 0] < answer.end)) if inside else np.array([])
        return (self.first + int(touched[0]), self.first + int(touched[-1])) if len(touched) else None


def features(questions: Sequence[str], contexts: Sequence[str], tokenizer: Any, max_length: int, stride: int) -> list[Feature]:
    """Return the pieces of each row in its order: `max_length` tokens at most, `stride` of them shared by neighbours.

    Of the tokens left beside the special ones the question keeps half, and is cut behind them; `stride` is a third at most, so
    that every piece gets on. A special token that is typed in a text is text.

    Raises:
        BadParams: `max_length` leaves no room.
    """
    tokenizer = plain(tokenizer)
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True)
    if room < _LEAST:
        least = max_length - room + _LEAST
        raise BadParams(f"params.yaml: preprocess.max_length is {max_length}; a question with its context needs {least} tokens or more")
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
    found = []
    for place, row in enumerate(rows):
        inputs = {name: list(encoded[name][place]) for name in names}
        own = [token for token, part in enumerate(encoded.sequence_ids(place)) if part == 1]
        first, last = (own[0], own[-1] + 1) if own else (0, 0)
        offsets: Ints = np.array(encoded["offset_mapping"][place][first:last], dtype=np.int64).reshape(-1, 2)
        begins = not own or place == 0 or rows[place - 1] != row
        ends = not own or place + 1 == len(rows) or rows[place + 1] != row
        covers = (0 if begins else int(offsets[0, 0]), len(contexts[row]) if ends else int(offsets[-1, 1]))
        found.append(Feature(row, inputs, _nothing(inputs["input_ids"], tokenizer), first, last, offsets, covers))
    return found


def shortened(questions: Sequence[str], tokenizer: Any, at_most: int) -> list[str]:
    """Return the questions, each cut behind its token number `at_most`."""
    plain = tokenizer(
        list(questions), add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False, truncation=False, verbose=False
    )
    return [
        text if len(marks) <= at_most else text[: marks[at_most - 1][1]]
        for text, marks in zip(questions, plain["offset_mapping"], strict=True)
    ]


def best_span(start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], longest: int) -> tuple[int, int, float]:
    """Return first and last token, and score, of the best span of up to `longest` tokens; `start` and `end` are logits (tokens,).

    Every span is looked at; of equal ones the first counts. The score is the sum of both logits (Devlin et al. 2019, BERT, 4.2).
    """
    best = (0, 0, -np.inf)
    for width in range(min(longest, len(start))):
        sums = start[: len(start) - width] + end[width:]
        place = int(sums.argmax())
        if (sums[place], -place) > (best[2], -best[0]):
            best = (place, place + width, float(sums[place]))
    return best


def _nothing(ids: list[int], tokenizer: Any) -> int:
    return ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0
