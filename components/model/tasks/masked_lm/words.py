"""Choose the masked words of a test text from the text alone, so that all models get the same words.

Words are separated by spaces; in scripts without spaces, each character is a word. No tokenizer is used.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from components.core.text import WORD

SHARE = 0.15  # of the words that are masked; at least one
MAX_BYTES = 32  # longer words, e.g. URLs, are masked only if there are no others
EMPTY = "∅"  # replaces a predicted word without visible characters

Ints = npt.NDArray[np.int64]
Spans = list[tuple[int, int]]


def spans(text: str) -> Spans:
    """Return begin and end of each word of `text`, in characters."""
    return [match.span() for match in WORD.finditer(text)]


def masked(text: str) -> Spans:
    """Return the spans of the masked words: each with probability SHARE from a hash of the text, at least one."""
    all_spans = spans(text)
    short = [span for span in all_spans if len(text[slice(*span)].encode()) <= MAX_BYTES] or all_spans
    seed = hashlib.sha256(text.encode()).digest()
    digests = (hashlib.sha256(seed + index.to_bytes(8)).digest() for index in range(len(short)))
    drawn = [int.from_bytes(digest[:8]) / 2**64 for digest in digests]
    chosen = [span for span, fraction in zip(short, drawn, strict=True) if fraction < SHARE]
    return chosen or [short[drawn.index(min(drawn))]] if short else []


def expected(text: str) -> str:
    """Return the masked words, separated by spaces."""
    return " ".join(text[start:stop] for start, stop in masked(text))


def owners(text_spans: Spans, offsets: Sequence[tuple[int, int]]) -> Ints:
    """Return for each token, by its `offsets`, the index of its word.

    A token that spans several words belongs to the first; a token of no word, e.g. a space, to the next.
    """
    if not text_spans or not len(offsets):
        return np.zeros(len(offsets), dtype=np.int64)
    ends = np.array([stop for _, stop in text_spans])
    return np.minimum(np.searchsorted(ends, [start for start, _ in offsets], side="right"), len(ends) - 1).astype(np.int64)


def slots(text: str, offsets: Sequence[tuple[int, int]]) -> Ints:
    """Return for each token, by its `offsets`, the index of its masked word, or -1."""
    indexes = np.full(len(offsets), -1, dtype=np.int64)
    for slot, (start, stop) in enumerate(masked(text)):
        touching = np.array([begin < stop and end > start for begin, end in offsets], dtype=bool)
        indexes[touching & (indexes < 0)] = slot
    return indexes
