"""Tokenization into sub-words with the position where each token begins; long sentences are split into parts."""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from components.model.support.control_tokens import plain

IGNORED = -100
"""The label of sub-words that do not begin a token."""

Word = tuple[str, str]
"""The gap before a token, and the token."""


@dataclass(frozen=True)
class WordPiece:
    """Tokens `first` to `last` (exclusive) of the sentence `row`: the model `inputs`, and the position where each token `begins`."""

    row: int
    first: int
    last: int
    inputs: dict[str, list[int]]
    begins: list[int]

    @property
    def length(self) -> int:
        """The number of sub-words, including special tokens."""
        return len(self.inputs["input_ids"])

    def labels(self, indexes: Sequence[int]) -> list[int]:
        """Return a label per sub-word: the value in `indexes` where a token begins, else `IGNORED`."""
        labels = [IGNORED] * self.length
        for position, index in zip(self.begins, indexes, strict=True):
            labels[position] = index
        return labels


def parts_of(
    sentences: Sequence[Sequence[str]], tokenizer: Any, max_length: int, gaps: Sequence[Sequence[str]] | None = None
) -> list[WordPiece]:
    """Return the parts of each sentence in order; every token begins in exactly one part, if possible with all its sub-words.

    A sentence is encoded as text: each token after its gap from `gaps` (default: a space). A token without sub-words, e.g. an empty string
    or an invisible character, becomes an unknown token.
    """
    plain_tokenizer = plain(tokenizer, keep=[tokenizer.unk_token] if tokenizer.unk_token else [])
    rows = [list(zip(gaps[row] if gaps else [" "] * len(sentence), sentence, strict=True)) for row, sentence in enumerate(sentences)]
    parts: list[WordPiece] = []
    encoded = _encoded([words for words in rows if words], plain_tokenizer)
    for row, words in enumerate(rows):
        if not words:
            continue
        inputs, begins = next(encoded)
        if len(begins) < len(words):  # a sub-word may span two adjacent tokens
            words = [(gap if index in begins else " ", word) for index, (gap, word) in enumerate(words)]
            inputs, begins = next(_encoded([words], plain_tokenizer))
        if len(begins) < len(words):
            unknown = tokenizer.unk_token or "?"
            words = [(" ", word if index in begins else unknown) for index, (_, word) in enumerate(words)]
            inputs, begins = next(_encoded([words], plain_tokenizer))
        if len(inputs["input_ids"]) <= max_length:
            parts.append(WordPiece(row, 0, len(words), inputs, [begins[index] for index in range(len(words))]))
        else:
            parts.extend(_split(row, words, plain_tokenizer, max_length))
    return parts


def _split(row: int, sentence: Sequence[Word], tokenizer: Any, max_length: int) -> list[WordPiece]:
    """Split a long sentence into parts."""
    parts: list[WordPiece] = []
    first = 0
    while first < len(sentence):
        words = list(sentence[first : first + max_length])
        inputs, begins = next(_encoded([words], tokenizer, max_length))
        if len(begins) + first < len(sentence):  # the last token may be truncated
            words = words[: max(1, len(begins) - 1)]
            inputs, begins = next(_encoded([words], tokenizer, max_length))
        parts.append(WordPiece(row, first, first + len(words), inputs, [begins[index] for index in range(len(words))]))
        first += len(words)
    return parts


def _encoded(sentences: list[list[Word]], tokenizer: Any, max_length: int | None = None) -> Any:
    """Yield for each sentence the model inputs, and the start position of each token that has sub-words.

    The sentence is encoded as a text, not token by token, so that the tokenizer handles spaces as usual.
    """
    if not sentences:
        return
    texts = ["".join([sentence[0][1], *(gap + word for gap, word in sentence[1:])]) for sentence in sentences]
    cut = {"truncation": True, "max_length": max_length} if max_length else {"truncation": False}
    encoded = tokenizer(texts, return_offsets_mapping=True, padding=False, return_attention_mask=False, verbose=False, **cut)
    offsets = encoded.pop("offset_mapping")
    for row, sentence in enumerate(sentences):
        ends = list(itertools.accumulate(len(word) + (len(gap) if number else 0) for number, (gap, word) in enumerate(sentence)))
        begins: dict[int, int] = {}
        for position, ((begin, end), sequence) in enumerate(zip(offsets[row], encoded.sequence_ids(row), strict=True)):
            first = next((character for character in range(begin, end) if not texts[row][character].isspace()), end)
            if sequence is None or first == end:
                continue
            word = bisect.bisect_right(ends, first)
            if first >= ends[word] - len(sentence[word][1]):
                begins.setdefault(word, position)
        yield {name: values[row] for name, values in encoded.items()}, begins
