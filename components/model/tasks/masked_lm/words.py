"""Which words of a text a model is asked for: a question that follows from the text alone, so that every model is asked the same.

A word is what stands between spaces; in scripts that put none, a character. No tokenizer has a say in it.
"""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

SHARE = 0.15  # of the words that are asked for; at least one
LONGEST = 32  # bytes: what is longer, as an address, is asked for only where nothing else is there
EMPTY = "∅"  # in place of a word that was filled in with nothing that can be read

Ints = npt.NDArray[np.int64]
Spans = list[tuple[int, int]]

# Thai, Lao, Burmese, Khmer, kana, Han: scripts that put no space between words.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")


def spans(text: str) -> Spans:
    """Return where each word of `text` begins and ends, in characters."""
    return [found.span() for found in _WORD.finditer(text)]


def asked(text: str) -> Spans:
    """Return the words that a model is asked for: each with a chance of SHARE by a hash of the text, and at least one."""
    found = spans(text)
    short = [span for span in found if len(text[slice(*span)].encode()) <= LONGEST] or found
    seed = hashlib.sha256(text.encode()).digest()
    drawn = [_fraction(seed, place) for place in range(len(short))]
    chosen = [span for span, fraction in zip(short, drawn, strict=True) if fraction < SHARE]
    return chosen or [short[drawn.index(min(drawn))]] if short else []


def expected(text: str) -> str:
    """Return the words that `asked` names, with a space between."""
    return " ".join(text[start:stop] for start, stop in asked(text))


def owners(text_spans: Spans, offsets: Sequence[tuple[int, int]]) -> Ints:
    """Return for each token, by its `offsets` in the text, the number of the word that it is a piece of.

    A piece of several words belongs to the first; a piece of none, as a lone space, to the next.
    """
    if not text_spans or not len(offsets):
        return np.zeros(len(offsets), dtype=np.int64)
    ends = np.array([stop for _, stop in text_spans])
    return np.minimum(np.searchsorted(ends, [start for start, _ in offsets], side="right"), len(ends) - 1).astype(np.int64)


def slots(text: str, offsets: Sequence[tuple[int, int]]) -> Ints:
    """Return for each token, by its `offsets` in `text`, which of the words that are asked for it is a piece of; -1: of none."""
    found = np.full(len(offsets), -1, dtype=np.int64)
    for slot, (start, stop) in enumerate(asked(text)):
        touching = np.array([begin < stop and end > start for begin, end in offsets], dtype=bool)
        found[touching & (found < 0)] = slot
    return found


def _fraction(seed: bytes, place: int) -> float:
    return int.from_bytes(hashlib.sha256(seed + place.to_bytes(8)).digest()[:8]) / 2**64
