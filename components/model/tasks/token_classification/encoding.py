"""Sentences of tokens as sub-words: where each token begins, whatever the tokenizer makes of it. A long sentence is read in parts."""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.errors import BadModel
from components.model.support import pretrained
from components.model.support.control_tokens import plain

IGNORED = -100
"""The label of what is no token's first sub-word."""

Word = tuple[str, str]
"""A token of a sentence behind the gap that parts it from the one before."""


@dataclass(frozen=True)
class WordPiece:
    """Tokens `first` to `last` (exclusive) of the sentence `row`: the model's `inputs`, and where among them each token `begins`."""

    row: int
    first: int
    last: int
    inputs: dict[str, list[int]]
    begins: list[int]

    @property
    def length(self) -> int:
        """Sub-words, special ones included."""
        return len(self.inputs["input_ids"])

    def labels(self, numbers: Sequence[int]) -> list[int]:
        """Return a label for each sub-word: the token's of `numbers` where it begins, else `IGNORED`."""
        found = [IGNORED] * self.length
        for place, number in zip(self.begins, numbers, strict=True):
            found[place] = number
        return found


def load_tokenizer(base: Path) -> Any:
    """Load a tokenizer that can be asked which token a sub-word belongs to.

    Raises:
        BadModel: there is none, or it cannot.
    """
    tokenizer = pretrained.load_tokenizer(base)
    if not tokenizer.is_fast:
        raise BadModel(f"the tokenizer in {base} cannot tell whose token a sub-word is; choose a base.model with a tokenizer.json")
    return tokenizer


def parts_of(
    sentences: Sequence[Sequence[str]], tokenizer: Any, max_length: int, gaps: Sequence[Sequence[str]] | None = None
) -> list[WordPiece]:
    """Return the parts of each sentence, in order; every token begins in exactly one of them, as far as possible with all its sub-words.

    A sentence is read as the text that it is: its tokens with their `gaps` before them, which are spaces where there are none. A token
    that the tokenizer makes nothing of, as an empty one or a character without a shape, is read as an unknown one.
    """
    twin = plain(tokenizer, keep=[tokenizer.unk_token] if tokenizer.unk_token else [])
    rows = [list(zip(gaps[row] if gaps else [" "] * len(sentence), sentence, strict=True)) for row, sentence in enumerate(sentences)]
    found: list[WordPiece] = []
    whole = _encoded([words for words in rows if words], twin)
    for row, words in enumerate(rows):
        if not words:
            continue
        inputs, begins = next(whole)
        if len(begins) < len(words):  # a sub-word may reach over two tokens that no gap parts
            words = [(gap if place in begins else " ", word) for place, (gap, word) in enumerate(words)]
            inputs, begins = next(_encoded([words], twin))
        if len(begins) < len(words):
            unknown = tokenizer.unk_token or "?"
            words = [(" ", word if place in begins else unknown) for place, (_, word) in enumerate(words)]
            inputs, begins = next(_encoded([words], twin))
        if len(inputs["input_ids"]) <= max_length:
            found.append(WordPiece(row, 0, len(words), inputs, [begins[place] for place in range(len(words))]))
        else:
            found.extend(_cut(row, words, twin, max_length))
    return found


def _cut(row: int, sentence: Sequence[Word], tokenizer: Any, max_length: int) -> list[WordPiece]:
    """Return the parts of a sentence that is too long for one."""
    found: list[WordPiece] = []
    first = 0
    while first < len(sentence):
        words = list(sentence[first : first + max_length])
        inputs, begins = next(_encoded([words], tokenizer, max_length))
        if len(begins) + first < len(sentence):  # the last one may have lost some of its sub-words
            words = words[: max(1, len(begins) - 1)]
            inputs, begins = next(_encoded([words], tokenizer, max_length))
        found.append(WordPiece(row, first, first + len(words), inputs, [begins[place] for place in range(len(words))]))
        first += len(words)
    return found


def _encoded(sentences: list[list[Word]], tokenizer: Any, max_length: int | None = None) -> Any:
    """Yield for each sentence the model's inputs, and by token the place where it begins; tokens without sub-words have none.

    The sentence is encoded as a text, and never token by token: whether a word begins with the space before it, or with a mark that
    stands for one, is the tokenizer's own affair.
    """
    if not sentences:
        return
    texts = ["".join([sentence[0][1], *(gap + word for gap, word in sentence[1:])]) for sentence in sentences]
    cut = {"truncation": True, "max_length": max_length} if max_length else {"truncation": False}
    made = tokenizer(texts, return_offsets_mapping=True, padding=False, return_attention_mask=False, verbose=False, **cut)
    places = made.pop("offset_mapping")
    for row, sentence in enumerate(sentences):
        ends = list(itertools.accumulate(len(word) + (len(gap) if number else 0) for number, (gap, word) in enumerate(sentence)))
        begins: dict[int, int] = {}
        for place, ((begin, end), own) in enumerate(zip(places[row], made.sequence_ids(row), strict=True)):
            first = next((at for at in range(begin, end) if not texts[row][at].isspace()), end)
            if own is None or first == end:
                continue
            word = bisect.bisect_right(ends, first)
            if first >= ends[word] - len(sentence[word][1]):
                begins.setdefault(word, place)
        yield {name: values[row] for name, values in made.items()}, begins
