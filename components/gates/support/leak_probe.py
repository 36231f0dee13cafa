"""A probe for leaks that asks no counter: permuted labels can only be foretold from a text that stands on both sides.

Every distinct text, of training and test together, gets another text's label. The nearest training text then foretells a test text's
label no more often than chance, unless the two are the same text. Distinct means distinct in words, without case and punctuation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

from components.core.similarity import words

Ints = npt.NDArray[np.int64]

PERMUTATIONS = 20
_COMMON = 50  # a word in more training texts than this tells no neighbour


@dataclass(frozen=True)
class Probe:
    """What the probe found: the labels foretold beyond chance as a share of all distinct test `texts`, and its one-sided p."""

    share: float
    low: float
    high: float
    p: float
    texts: int


def probe(
    train: Sequence[str], test: Sequence[str], labels: Sequence[str], allowed: float, confidence: float, seed: int = 0
) -> Probe | None:
    """Foretell permuted labels by the nearest training text; None where there is nothing to foretell from, or only one label.

    `labels` are those of all rows, training first. The p is that a share of `allowed` test texts, or fewer, stand in training too;
    a test text without a neighbour is one that does not. Given which labels fell to the test, their order is a random permutation:
    mean and variance of the hits are exact, and the permutations are independent.
    """
    keys = [" ".join(words(text)) or text for text in (*train, *test)]
    place: dict[str, int] = {}
    index = np.array([place.setdefault(key, len(place)) for key in keys], dtype=np.int64)
    _, first = np.unique(index, return_index=True)
    names, numbers = np.unique(np.asarray(labels, dtype=np.str_)[first], return_inverse=True)
    learnt = int(index[: len(train)].max(initial=-1)) + 1
    tested = np.unique(index[len(train) :])
    asked, neighbour = _neighbours(list(place), learnt, tested)
    if len(names) < 2 or len(asked) < 2:
        return None
    generator, gains, spreads = np.random.default_rng(seed), [], []
    for _ in range(PERMUTATIONS):
        permuted = generator.permutation(numbers.reshape(-1))
        gain, spread = _foretold(permuted[neighbour], permuted[asked], len(names))
        gains.append(gain)
        spreads.append(spread)
    of_all = len(asked) / len(tested)
    share, error = of_all * float(np.mean(gains)), of_all * float(np.sqrt(np.sum(np.square(spreads))) / PERMUTATIONS)
    half = float(scipy.stats.norm.ppf((1 + confidence) / 2)) * error
    p = float(scipy.stats.norm.sf((share - allowed) / error)) if error > 0 else float(share <= allowed)
    return Probe(share, max(share - half, -1.0), min(share + half, 1.0), p, len(tested))


def _foretold(foretold: Ints, actual: Ints, labels: int) -> tuple[float, float]:
    """Return the hits beyond chance as a share of all that could be, and the standard error under a random order of `actual`.

    Hits of a random permutation: the mean is sum a_k b_k / n; the variance is the sum over all pairs of the doubly centred
    squares / (n - 1), Hoeffding (1951), Annals of Mathematical Statistics 22:558.
    """
    n = len(actual)
    a, b = (np.bincount(side, minlength=labels) / n for side in (foretold, actual))
    chance = float(a @ b)
    possible = 1 - chance
    if possible <= 0:
        return 0.0, 0.0
    # Centred squares by class pair: 1(j = k) - b_j - a_k + chance, weighted by n a_j · n b_k.
    centred = np.subtract.outer(-b, a) + chance
    squares = float(np.einsum("j,jk,k", a, centred**2, b)) + float(np.sum(a * b * (1 + 2 * (chance - a - b))))
    hits = float(np.mean(foretold == actual))
    return (hits - chance) / possible, float(np.sqrt(max(squares, 0.0) * n**2 / (n - 1)) / n / possible)


def _neighbours(texts: list[str], learnt: int, asked: Ints) -> tuple[Ints, Ints]:
    """Return the places in `texts` that have a neighbour among the first `learnt`, and that neighbour's place.

    A text that stands there itself is its own nearest one; else it is the text that shares most of its rare words, weighted by
    rarity. Texts that share none are not asked.
    """
    new = asked[asked >= learnt]
    if not learnt or not len(new):
        return asked[asked < learnt], asked[asked < learnt]
    known: dict[str, int] = {}
    bags = [[known.setdefault(word, len(known)) for word in set(text.split())] for text in texts[:learnt]]
    theirs = _matrix(bags, len(known))
    mine = _matrix([[known[word] for word in set(texts[place].split()) if word in known] for place in new.tolist()], len(known))
    counts = np.asarray(theirs.sum(axis=0)).reshape(-1)
    weights = np.where(counts <= _COMMON, np.log1p(learnt / np.maximum(counts, 1)), 0.0)
    weighted = mine @ scipy.sparse.diags_array(weights).tocsr()
    weighted.eliminate_zeros()
    alike = (weighted @ theirs.T).tocsr()
    has = np.flatnonzero(np.diff(alike.indptr) > 0)
    nearest = np.array([_largest(alike, row) for row in has.tolist()], dtype=np.int64)
    own = asked[asked < learnt]
    return np.concatenate([own, new[has]]), np.concatenate([own, nearest])


def _largest(alike: scipy.sparse.csr_array, row: int) -> int:
    """Return the column with the largest value of a row, the first of equals."""
    start, end = alike.indptr[row], alike.indptr[row + 1]
    values, columns = alike.data[start:end], alike.indices[start:end]
    return int(columns[values == values.max()].min())


def _matrix(bags: list[list[int]], width: int) -> scipy.sparse.csr_array:
    """Return the bags as rows of ones."""
    lengths = [len(bag) for bag in bags]
    columns = np.array([number for bag in bags for number in bag], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return scipy.sparse.csr_array((np.ones(len(columns)), columns, starts), shape=(len(bags), width))
