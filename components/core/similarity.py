"""Find near-duplicate texts by Jaccard similarity of their shingles: words and word pairs, without case and punctuation."""

import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from components.core.text import TERM, UNSPACED, normalise

if TYPE_CHECKING:
    from datasketch import MinHash

_PERMUTATIONS = 128
# Candidates are verified, so a false one is cheap and a missed one is a leak: recall at the threshold is above 96 %.
_WEIGHTS = (0.02, 0.98)
_STEEPEST = 0.95  # LSH has too few bands above this; verification uses the threshold itself
_CHARACTER = re.compile(rf"[{UNSPACED}]")


def plain(text: str) -> str:
    """Return the normalised text; a fast check skips texts that are already normalised."""
    return text if text.isascii() and text == " ".join(text.split()) else normalise(text, "NFC")


def words(text: str) -> list[str]:
    """Return the words of `text` in order, without case and punctuation; single characters for scripts without spaces."""
    return TERM.findall(text.casefold())


def row_key(text: str) -> str:
    """Return 12 digits of a sha256 over the words of `text`; case, punctuation and spaces do not matter."""
    normal = normalise(text, "NFKC")
    return hashlib.sha256((" ".join(words(normal)) or normal).encode()).hexdigest()[:12]


def shingles(text: str) -> frozenset[str]:
    """Return the words and word pairs of `text`; runs of three characters if most of it is in a script without spaces."""
    tokens = words(text)
    if 2 * len(_CHARACTER.findall(text)) > len(tokens):
        runs = {"".join(tokens[start : start + 3]) for start in range(max(1, len(tokens) - 2))}
    else:
        runs = {*tokens, *(" ".join(pair) for pair in pairwise(tokens))}
    return frozenset(runs or {text})


def similar_pairs(texts: Sequence[str], others: Sequence[str], threshold: float) -> npt.NDArray[np.bool_]:
    """Return which of `texts` (texts,) equal one of `others` or have a near copy there; a threshold of 1 finds equal texts only."""
    plain_texts, plain_others = [plain(text) for text in texts], {plain(text) for text in others}
    similar = np.array([text in plain_others for text in plain_texts], dtype=np.bool_)
    if threshold < 1 and not similar.all():
        rest = np.flatnonzero(~similar)
        near = closest([plain_texts[index] for index in rest], sorted(plain_others), threshold)
        similar[rest[list(near)]] = True
    return similar


class ClosestText:
    """Collects the most similar other text for each of `count` texts; the first wins among equals."""

    def __init__(self, count: int) -> None:
        self._twins = np.full(count, -1, dtype=np.int64)
        self._similarities = np.zeros(count)

    def add(self, rows: npt.NDArray[np.int64], twin: int, similarities: npt.NDArray[np.float64]) -> None:
        """Add the similarities of the text `twin` to the texts with the indexes `rows`."""
        better = similarities > self._similarities[rows]
        self._twins[rows[better]] = twin
        self._similarities[rows[better]] = similarities[better]

    def matches(self) -> dict[int, tuple[int, float]]:
        """Return, for each text with a match, the index of the most similar other text and the similarity."""
        return {int(row): (int(self._twins[row]), float(self._similarities[row])) for row in np.flatnonzero(self._twins >= 0)}


def closest(texts: Sequence[str], others: Sequence[str], threshold: float) -> dict[int, tuple[int, float]]:
    """Return, for each of `texts` with a match, the index of the most similar of `others` and the similarity.

    Similarities are at least `threshold`; the first wins among equals.
    """
    best = ClosestText(len(texts))
    for match in near_duplicates(texts, others, threshold):
        best.add(*match)
    return best.matches()


def near_duplicates(
    texts: Sequence[str], others: Sequence[str], threshold: float
) -> Iterator[tuple[npt.NDArray[np.int64], int, npt.NDArray[np.float64]]]:
    """Yield, for each of `others` with near copies: their indexes in `texts` (matches,), its index, the similarities (matches,).

    The Jaccard similarity of the shingles is `threshold` or more. Candidates come from MinHash LSH (datasketch) and are verified
    exactly: there are no false matches, and about one pair in thirty at the threshold is missed. In the order of `others`.
    """
    if not texts or not others:
        return
    from datasketch import MinHashLSH  # slow: it imports scipy and redis

    shingled = [shingles(text) for text in texts]
    index = MinHashLSH(threshold=min(threshold, _STEEPEST), num_perm=_PERMUTATIONS, weights=_WEIGHTS)
    with index.insertion_session() as session:
        for row, signature in enumerate(_signatures(shingled)):
            session.insert(row, signature)
    numbered = _NumberedShingles(shingled)
    possible = {twin: text for twin, text in enumerate(map(shingles, others)) if numbered.upper_bound(text) >= threshold}
    for twin, signature in zip(possible, _signatures(possible.values()), strict=True):
        if candidates := index.query(signature):
            rows = np.sort(np.fromiter(candidates, dtype=np.int64, count=len(candidates)))
            similarities = numbered.jaccard(rows, possible[twin])
            near = similarities >= threshold
            yield rows[near], twin, similarities[near]


class _NumberedShingles:
    """The shingles of many texts as numbers, to count the overlap of one text with thousands of texts at once.

    The number of candidates is not limited: among many texts of one template a limit would hide the near copy.
    """

    def __init__(self, shingled: Sequence[frozenset[str]]) -> None:
        from scipy.sparse import csr_array

        self._number: dict[str, int] = {}
        numbers = [self._number.setdefault(shingle, len(self._number)) for text in shingled for shingle in text]
        self._sizes = np.array([len(text) for text in shingled], dtype=np.int64)
        ends = np.concatenate([[0], np.cumsum(self._sizes)])
        self._texts = csr_array((np.ones(len(numbers), dtype=np.int32), numbers, ends), (len(shingled), len(self._number)))

    def upper_bound(self, other: frozenset[str]) -> float:
        """Return an upper bound of the similarity of `other` with any of the texts, to skip most texts before they are signed."""
        return sum(shingle in self._number for shingle in other) / len(other)

    def jaccard(self, rows: npt.NDArray[np.int64], other: frozenset[str]) -> npt.NDArray[np.float64]:
        """Return the Jaccard similarity of `other` with the texts with the indexes `rows` (rows,)."""
        shared = np.zeros(len(self._number), dtype=np.int32)
        shared[[self._number[shingle] for shingle in other if shingle in self._number]] = 1
        common = self._texts[rows] @ shared
        return np.asarray(common / (self._sizes[rows] + len(other) - common), dtype=np.float64)


def _signatures(shingled: Iterable[frozenset[str]]) -> "Iterator[MinHash]":
    from datasketch import MinHash

    # CRC-32 instead of the default SHA-1: there is no adversary, and it takes half the time.
    encoded = ([shingle.encode() for shingle in text] for text in shingled)
    yield from MinHash.generator(encoded, num_perm=_PERMUTATIONS, hashfunc=zlib.crc32)
