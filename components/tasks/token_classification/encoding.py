"""Sentences of tokens as sub-words: where each token begins, whatever the tokenizer makes of it. A long sentence is read in parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import BadModel
from components.tasks import _pretrained

IGNORED = -100
"""The label of what is no token's first sub-word."""


@dataclass(frozen=True)
class Part:
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
    tokenizer = _pretrained.load_tokenizer(base)
    if not tokenizer.is_fast:
        raise BadModel(f"the tokenizer in {base} cannot tell whose token a sub-word is; choose a base.model with a tokenizer.json")
    return tokenizer


def parts_of(sentences: Sequence[Sequence[str]], tokenizer: Any, max_length: int) -> list[Part]:
    """Return the parts of each sentence, in order; every token begins in exactly one of them, as far as possible with all its sub-words.

    A token that the tokenizer makes nothing of, as an empty one or a character without a shape, is read as an unknown one.
    """
    found: list[Part] = []
    whole = _encoded([list(sentence) for sentence in sentences if sentence], tokenizer)
    for row, sentence in enumerate(sentences):
        if not sentence:
            continue
        inputs, begins = next(whole)
        if len(begins) < len(sentence):
            sentence = [word if place in begins else tokenizer.unk_token or "?" for place, word in enumerate(sentence)]
            inputs, begins = next(_encoded([sentence], tokenizer))
        if len(inputs["input_ids"]) <= max_length:
            found.append(Part(row, 0, len(sentence), inputs, [begins[place] for place in range(len(sentence))]))
        else:
            found.extend(_cut(row, sentence, tokenizer, max_length))
    return found


def _cut(row: int, sentence: Sequence[str], tokenizer: Any, max_length: int) -> list[Part]:
    """Return the parts of a sentence that is too long for one."""
    found: list[Part] = []
    first = 0
    while first < len(sentence):
        words = list(sentence[first : first + max_length])
        inputs, begins = next(_encoded([words], tokenizer, max_length))
        if len(begins) + first < len(sentence):  # the last one may have lost some of its sub-words
            words = words[: max(1, len(begins) - 1)]
            inputs, begins = next(_encoded([words], tokenizer, max_length))
        found.append(Part(row, first, first + len(words), inputs, [begins[place] for place in range(len(words))]))
        first += len(words)
    return found


def _encoded(sentences: list[list[str]], tokenizer: Any, max_length: int | None = None) -> Any:
    """Yield for each sentence the model's inputs, and by token the place where it begins; tokens without sub-words have none."""
    if not sentences:
        return
    if "ByteLevel" in str(tokenizer.backend_tokenizer.pre_tokenizer):  # to GPT's and RoBERTa's, a word begins with the space before it
        sentences = [[f" {word}" for word in sentence] for sentence in sentences]
    cut = {"truncation": True, "max_length": max_length} if max_length else {"truncation": False}
    made = tokenizer(sentences, is_split_into_words=True, padding=False, return_attention_mask=False, verbose=False, **cut)
    for row in range(len(sentences)):
        begins: dict[int, int] = {}
        for place, word in enumerate(made.word_ids(row)):
            if word is not None:
                begins.setdefault(word, place)
        yield {name: values[row] for name, values in made.items()}, begins
