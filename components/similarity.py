"""How much alike two texts are, and which texts have a near copy among others: exact, in place of a search that may miss some.

Texts are compared by their shingles: words and pairs of adjacent words, without case and punctuation.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

# Thai, Lao, Burmese, Khmer, kana, Han: scripts that put no space between words.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_CHARACTER = re.compile(rf"[{_UNSPACED}]")
# Only where this many texts share the rare shingles of one can its copies hide in the crowd; then some of them are found.
_CANDIDATES, _VERIFIED = 1_000, 20
_AT_ONCE = 2_000_000  # pairs held at the same time
_BITS = 256


def words(text: str) -> list[str]:
    """Return the words of `text` in their order, without case and punctuation; in scripts without spaces, the characters."""
    return _TOKEN.findall(text.casefold())


def shingles(text: str) -> frozenset[str]:
    """Return the words and pairs of adjacent words of `text`, without case and punctuation.

    Where most of a text is in a script without spaces, the shingles are runs of three characters instead.
    """
    tokens = words(text)
    if _unspaced(text, tokens):
        runs = {"".join(tokens[place : place + 3]) for place in range(max(1, len(tokens) - 2))}
    else:
        runs = {*tokens, *(" ".join(pair) for pair in pairwise(tokens))}
    return frozenset(runs or {text})


def closest(texts: Sequence[str], others: Sequence[str], threshold: float) -> dict[int, tuple[int, float]]:
    """Return, for each place in `texts` that has one, the place of the most similar of `others` and the similarity.

    The similarity is Jaccard's, of the shingles, and `threshold` (above 0) or more; of equally similar ones the first counts. Prefix
    filtering: two sets with a similarity of t share one of the |x| - ceil(t |x|) + 1 rarest elements of either, at places that leave
    room for the rest (Xiao et al. 2011, ACM TODS 36:15). What is left is compared exactly.
    """
    if not len(texts) or not len(others):
        return {}
    both = _Sets.of([*texts, *others])
    mine, theirs = both.part(0, len(texts)), both.part(len(texts), len(texts) + len(others))
    found = {place: (other, 1.0) for place, other in enumerate(_equal(mine, theirs)) if other is not None}
    for place, other in _candidates(mine, theirs, threshold, np.array([place not in found for place in range(len(texts))])):
        similarity = _jaccard(mine.members(place), theirs.members(other))
        best = found.get(place)
        if similarity >= threshold and (best is None or (-similarity, other) < (-best[1], best[0])):
            found[place] = (other, similarity)
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class _Sets:
    """The shingles of texts as numbers, the rarest first: those of text i are `elements[starts[i] : starts[i + 1]]`, ascending."""

    elements: Ints
    starts: Ints

    @classmethod
    def of(cls, texts: Sequence[str]) -> "_Sets":
        rows, numbers = _shingled(texts)
        span = int(numbers.max()) + 1
        once = _distinct(rows * span + numbers)
        rows, numbers = once // span, once % span
        counts = np.bincount(numbers, minlength=span)
        rank = np.empty(span, dtype=np.int64)
        rank[np.argsort(counts, kind="stable")] = np.arange(span)
        elements = np.sort(rows * span + rank[numbers]) % span
        return cls(elements, np.searchsorted(rows, np.arange(len(texts) + 1)))

    def part(self, first: int, last: int) -> "_Sets":
        """Return the sets from `first` up to `last`."""
        starts = self.starts[first : last + 1]
        return _Sets(self.elements[starts[0] : starts[-1]], starts - starts[0])

    @cached_property
    def sizes(self) -> Ints:
        return np.diff(self.starts)

    @cached_property
    def signatures(self) -> npt.NDArray[np.uint64]:
        """The parity of the elements on each of 256 bits, (sets, 4): bits in which two differ count from below how many elements do."""
        place = (self.elements.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(56)
        bit = np.left_shift(np.uint64(1), place % np.uint64(64))
        parts = [np.where(place // np.uint64(64) == number, bit, np.uint64(0)) for number in range(_BITS // 64)]
        return np.stack([np.bitwise_xor.reduceat(part, self.starts[:-1]) for part in parts], axis=1)

    def members(self, place: int) -> set[int]:
        return set(self.elements[self.starts[place] : self.starts[place + 1]].tolist())

    def prefixes(self, chosen: npt.NDArray[np.bool_], threshold: float) -> tuple[Ints, Ints, Ints]:
        """Return row, place and element of the rarest elements of the `chosen` sets, row by row."""
        lengths = np.where(chosen, self.sizes - _least(self.sizes, threshold) + 1, 0)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        places = _within(lengths)
        return rows, places, self.elements[self.starts[rows] + places]


def _shingled(texts: Sequence[str]) -> tuple[Ints, Ints]:
    """Return row and number of every shingle of every text, repeated ones included."""
    tokens = [words(text) for text in texts]
    lengths = np.array([len(each) for each in tokens], dtype=np.int64)
    known: dict[str, int] = {}
    flat = np.array([known.setdefault(word, len(known)) for word in chain.from_iterable(tokens)], dtype=np.int64)
    rows, span = np.repeat(np.arange(len(texts)), lengths), len(known) + 1
    second, third = (np.where(_shifted(rows, by) == rows, _shifted(flat, by) + 1, 0) for by in (1, 2))
    dense = np.array([_unspaced(text, each) for text, each in zip(texts, tokens, strict=True)], dtype=np.bool_)[rows]
    pairs = np.unique(flat * span + second, return_inverse=True)[1].reshape(-1)
    runs = np.unique(pairs * span + third, return_inverse=True)[1].reshape(-1)
    dense &= lengths[rows] > 1  # a single character is a word
    whole = dense & ((third > 0) | (lengths[rows] == 2) & (second > 0))  # a run of three, or all that there is
    blank = np.flatnonzero(lengths == 0)
    seen: dict[str, int] = {}
    wordless = np.array([seen.setdefault(texts[row], len(seen)) for row in blank.tolist()], dtype=np.int64)
    double = ~dense & (second > 0)
    kinds = [(rows[~dense], flat[~dense]), (rows[double], pairs[double]), (rows[whole], runs[whole]), (blank, wordless)]
    bases = np.cumsum([0, *(int(numbers.max(initial=-1)) + 1 for _, numbers in kinds)])
    placed = [numbers + base for (_, numbers), base in zip(kinds, bases, strict=False)]
    return np.concatenate([row for row, _ in kinds]).astype(np.int64), np.concatenate(placed).astype(np.int64)


def _candidates(mine: _Sets, theirs: _Sets, threshold: float, chosen: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of places that may be `threshold` alike, the `chosen` of `mine` with any of `theirs`."""
    rows, places, elements = mine.prefixes(chosen, threshold)
    other, other_places, other_elements = theirs.prefixes(np.ones(len(theirs.sizes), dtype=np.bool_), threshold)
    span = int(max(mine.sizes.max(), theirs.sizes.max())) + 2
    order = np.lexsort((other, theirs.sizes[other], other_elements))
    other, other_places = other[order], other_places[order]
    keys = other_elements[order] * span + theirs.sizes[other]
    size = mine.sizes[rows]
    most = np.minimum(np.floor(size / threshold + 1e-9).astype(np.int64), span - 1)
    first = np.searchsorted(keys, elements * span + _least(size, threshold), side="left")
    amount = _limited(np.searchsorted(keys, elements * span + most, side="right") - first, rows, _CANDIDATES)
    for part in _batches(amount, rows):
        counts = amount[part]
        probe = np.repeat(np.arange(part.start, part.stop), counts)
        posting = np.repeat(first[part], counts) + _within(counts)
        row, twin = rows[probe], other[posting]
        needed = np.ceil(threshold / (1 + threshold) * (size[probe] + theirs.sizes[twin]) - 1e-9)
        room = np.minimum(size[probe] - places[probe], theirs.sizes[twin] - other_places[posting])
        once = _distinct((row * len(theirs.sizes) + twin)[room >= needed])
        yield from _alike(mine, theirs, once // len(theirs.sizes), once % len(theirs.sizes), threshold)


def _alike(mine: _Sets, theirs: _Sets, row: Ints, twin: Ints, threshold: float) -> Iterator[tuple[int, int]]:
    """Yield the pairs whose signatures allow the similarity, of each row those that look most alike."""
    both = mine.sizes[row] + theirs.sizes[twin]
    differ = np.bitwise_count(mine.signatures[row] ^ theirs.signatures[twin]).sum(axis=1, dtype=np.int64)
    may = differ <= both - 2 * np.ceil(threshold / (1 + threshold) * both - 1e-9)
    row, twin, differ = row[may], twin[may], differ[may]
    order = np.lexsort((twin, differ, row))
    row, twin = row[order], twin[order]
    kept = np.arange(len(row)) - np.searchsorted(row, row) < _VERIFIED
    yield from zip(row[kept].tolist(), twin[kept].tolist(), strict=True)


def _equal(mine: _Sets, theirs: _Sets) -> list[int | None]:
    """Return, for each of `mine`, the first of `theirs` with the same elements."""
    first: dict[bytes, int] = {}
    for place in range(len(theirs.sizes)):
        first.setdefault(theirs.elements[theirs.starts[place] : theirs.starts[place + 1]].tobytes(), place)
    return [first.get(mine.elements[mine.starts[place] : mine.starts[place + 1]].tobytes()) for place in range(len(mine.sizes))]


def _jaccard(one: set[int], other: set[int]) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def _unspaced(text: str, tokens: Sequence[str]) -> bool:
    return not text.isascii() and 2 * len(_CHARACTER.findall(text)) > len(tokens)


def _least(sizes: Ints, threshold: float) -> Ints:
    """Return the smallest size of a set that may be `threshold` alike; also, how many elements the two must share at least."""
    return np.asarray(np.ceil(threshold * sizes - 1e-9), dtype=np.int64)


def _distinct(values: Ints) -> Ints:
    """Return the distinct values, ascending; by sorting, which here is five times as fast as the hashing of np.unique."""
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def _within(lengths: Ints) -> Ints:
    """Return 0, 1, … for each length in turn."""
    return np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _shifted(values: Ints, by: int) -> Ints:
    """Return the values `by` places further on, -1 beyond the end."""
    return np.concatenate([values[by:], np.full(min(by, len(values)), -1, dtype=np.int64)])


def _limited(amount: Ints, rows: Ints, most: int) -> Ints:
    """Return the amounts, those of one row cut so that together they are `most` or fewer; the first are cut last."""
    ends = np.cumsum(amount)
    before = ends - amount
    own = before - before[np.searchsorted(rows, rows)] if len(rows) else before
    return np.asarray(np.clip(most - own, 0, amount), dtype=np.int64)


def _batches(amount: Ints, rows: Ints) -> Iterator[slice]:
    """Yield slices of whole rows, each of at most about `_AT_ONCE` pairs."""
    ends, start = np.cumsum(amount), 0
    while start < len(amount):
        done = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, done + _AT_ONCE, side="right")), start + 1)
        stop = int(np.searchsorted(rows, rows[stop - 1], side="right"))
        yield slice(start, stop)
        start = stop
