"""How much alike two texts are, and which texts have a near copy among others.

Texts are compared by their shingles: words and pairs of adjacent words, without case and punctuation.
"""

import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from components.core.text import normalise

if TYPE_CHECKING:
    from datasketch import MinHash

_PERMUTATIONS = 128
# Candidates are verified, so a false one costs little and a missed one is a leak: recall at the threshold is then above 96 %.
_WEIGHTS = (0.02, 0.98)
_STEEPEST = 0.95  # LSH has too few bands above this; verification still asks for the threshold itself
# Thai, Lao, Burmese, Khmer, kana, Han: scripts that put no space between words.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_CHARACTER = re.compile(rf"[{_UNSPACED}]")


def plain(text: str) -> str:
    """Return the text as texts are compared; most are already, which is seen faster than done."""
    return text if text.isascii() and text == " ".join(text.split()) else normalise(text, "NFC")


def words(text: str) -> list[str]:
    """Return the words of `text` in their order, without case and punctuation; in scripts without spaces, the characters."""
    return _TOKEN.findall(text.casefold())


def row_key(text: str) -> str:
    """Return 12 digits of a sha256 over the words of `text`: the same for texts that differ in case, punctuation or spaces alone."""
    said = normalise(text, "NFKC")
    return hashlib.sha256((" ".join(words(said)) or said).encode()).hexdigest()[:12]


def shingles(text: str) -> frozenset[str]:
    """Return the words and pairs of adjacent words of `text`, without case and punctuation.

    Where most of a text is in a script without spaces, the shingles are runs of three characters instead.
    """
    tokens = words(text)
    if 2 * len(_CHARACTER.findall(text)) > len(tokens):
        runs = {"".join(tokens[place : place + 3]) for place in range(max(1, len(tokens) - 2))}
    else:
        runs = {*tokens, *(" ".join(pair) for pair in pairwise(tokens))}
    return frozenset(runs or {text})


def similar_pairs(texts: Sequence[str], others: Sequence[str], threshold: float) -> npt.NDArray[np.bool_]:
    """Return which of `texts` are among `others` word for word, or have a near copy there; with a threshold of 1 only the former."""
    mine, theirs = [plain(text) for text in texts], {plain(text) for text in others}
    found = np.array([text in theirs for text in mine], dtype=np.bool_)
    if threshold < 1 and not found.all():
        rest = np.flatnonzero(~found)
        near = closest([mine[place] for place in rest], sorted(theirs), threshold)
        found[rest[list(near)]] = True
    return found


class ClosestText:
    """The most similar of some other texts to each of `count` texts, as they are found; of equally similar ones the first counts."""

    def __init__(self, count: int) -> None:
        self._twins = np.full(count, -1, dtype=np.int64)
        self._similarities = np.zeros(count)

    def add(self, places: npt.NDArray[np.int64], twin: int, similarities: npt.NDArray[np.float64]) -> None:
        """Take the text `twin` into account, which is so similar to the texts at `places` (found,)."""
        better = similarities > self._similarities[places]
        self._twins[places[better]] = twin
        self._similarities[places[better]] = similarities[better]

    def found(self) -> dict[int, tuple[int, float]]:
        """Return, for each place that has one, the place of the most similar text and the similarity."""
        return {int(place): (int(self._twins[place]), float(self._similarities[place])) for place in np.flatnonzero(self._twins >= 0)}


def closest(texts: Sequence[str], others: Sequence[str], threshold: float) -> dict[int, tuple[int, float]]:
    """Return, for each place in `texts` that has one, the place of the most similar of `others` and the similarity.

    It is `threshold` or more; of equally similar ones the first counts.
    """
    best = ClosestText(len(texts))
    for places, twin, similarities in near_duplicates(texts, others, threshold):
        best.add(places, twin, similarities)
    return best.found()


def near_duplicates(
    texts: Sequence[str], others: Sequence[str], threshold: float
) -> Iterator[tuple[npt.NDArray[np.int64], int, npt.NDArray[np.float64]]]:
    """Yield the places of texts (found,), the place of one of `others`, and their similarities to it (found,), `threshold` or more.

    The similarity is Jaccard's, of the shingles. Candidates come from MinHash LSH (datasketch) and are verified exactly, so what is
    found is so, and about one pair in thirty at the threshold is missed. In the order of `others`.
    """
    if not texts or not others:
        return
    from datasketch import MinHashLSH  # it imports scipy and redis, which those who only want words need not wait for

    mine = [shingles(text) for text in texts]
    index = MinHashLSH(threshold=min(threshold, _STEEPEST), num_perm=_PERMUTATIONS, weights=_WEIGHTS)
    with index.insertion_session() as session:
        for place, signature in enumerate(_signatures(mine)):
            session.insert(place, signature)
    numbered = _Numbered(mine)
    theirs = {twin: one for twin, one in enumerate(map(shingles, others)) if numbered.at_most(one) >= threshold}
    for twin, signature in zip(theirs, _signatures(theirs.values()), strict=True):
        if found := index.query(signature):
            places = np.sort(np.fromiter(found, dtype=np.int64, count=len(found)))
            similarities = numbered.jaccard(places, theirs[twin])
            near = similarities >= threshold
            yield places[near], twin, similarities[near]


class _Numbered:
    """The shingles of many texts as numbers: what one text has in common with thousands of them is counted at once.

    Every candidate is verified, however many there are: in a crowd of texts from one template a bound would hide the twin.
    """

    def __init__(self, shingled: Sequence[frozenset[str]]) -> None:
        self._known: dict[str, int] = {}
        numbers = [self._known.setdefault(shingle, len(self._known)) for one in shingled for shingle in one]
        self._numbers = np.array(numbers, dtype=np.int64)
        self._sizes = np.array([len(one) for one in shingled], dtype=np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes

    def at_most(self, other: frozenset[str]) -> float:
        """Return what no similarity of `other` with any of the texts is above: most texts are told apart by it, before they are signed."""
        return sum(shingle in self._known for shingle in other) / len(other)

    def jaccard(self, places: npt.NDArray[np.int64], other: frozenset[str]) -> npt.NDArray[np.float64]:
        """Return Jaccard's similarity of `other` with the texts at `places` (texts,)."""
        shared = np.zeros(len(self._known), dtype=np.bool_)
        shared[[self._known[shingle] for shingle in other if shingle in self._known]] = True
        sizes = self._sizes[places]
        if 2 * len(places) > len(self._sizes):  # in a crowd all are compared faster than most of them are picked
            common = np.add.reduceat(shared[self._numbers], self._starts, dtype=np.int64)[places]
        else:
            firsts = np.cumsum(sizes) - sizes
            theirs = np.repeat(self._starts[places] - firsts, sizes) + np.arange(sizes.sum())
            common = np.add.reduceat(shared[self._numbers[theirs]], firsts, dtype=np.int64)
        return np.asarray(common / (sizes + len(other) - common), dtype=np.float64)


def _signatures(shingled: Iterable[frozenset[str]]) -> "Iterator[MinHash]":
    from datasketch import MinHash

    # CRC-32 in place of the default SHA-1: a hash against chance, not against an adversary, and half the time.
    encoded = ([shingle.encode() for shingle in one] for one in shingled)
    yield from MinHash.generator(encoded, num_perm=_PERMUTATIONS, hashfunc=zlib.crc32)
