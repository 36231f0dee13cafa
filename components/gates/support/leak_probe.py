"""A leak probe that counts no copies: permuted labels are predictable only for texts that occur in both training and test.

Every distinct text, training and test together, gets the label of another text. The nearest training text then predicts a test text's
label no more often than chance, unless both are the same text. Texts are distinct if their words differ, ignoring case and punctuation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from components.core.similarity import words
from components.stats.units import Ints

PERMUTATIONS = 20
_COMMON = 50  # a word in more training texts than this is ignored


@dataclass(frozen=True)
class Probe:
    """Labels predicted beyond chance, as a share of all distinct test `texts`, with interval and one-sided p-value."""

    share: float
    low: float
    high: float
    p: float
    texts: int


def probe(
    train: Sequence[str], test: Sequence[str], labels: Sequence[str], allowed: float, confidence: float, seed: int = 0
) -> Probe | None:
    """Predict permuted labels from the nearest training text; None without neighbours, or with a single label.

    `labels` are those of all rows, training first. The null hypothesis: at most a share of `allowed` test texts also occur in training;
    a test text without a neighbour does not. Given the labels of the test texts, their order is a random permutation: mean and variance
    of the hits are exact, and the permutations are independent.
    """
    keys = [" ".join(words(text)) or text for text in (*train, *test)]
    numbers_by_text: dict[str, int] = {}
    index = np.array([numbers_by_text.setdefault(key, len(numbers_by_text)) for key in keys], dtype=np.int64)
    _, first = np.unique(index, return_index=True)
    names, numbers = np.unique(np.asarray(labels, dtype=np.str_)[first], return_inverse=True)
    trained = int(index[: len(train)].max(initial=-1)) + 1
    tested = np.unique(index[len(train) :])
    compared, neighbours = _neighbours(list(numbers_by_text), trained, tested)
    if len(names) < 2 or len(compared) < 2:
        return None
    generator, gains, spreads = np.random.default_rng(seed), [], []
    for _ in range(PERMUTATIONS):
        permuted = generator.permutation(numbers.reshape(-1))
        gain, spread = _excess_hits(permuted[neighbours], permuted[compared], len(names))
        gains.append(gain)
        spreads.append(spread)
    coverage = len(compared) / len(tested)
    share, error = coverage * float(np.mean(gains)), coverage * float(np.sqrt(np.sum(np.square(spreads))) / PERMUTATIONS)
    half = float(scipy.stats.norm.ppf((1 + confidence) / 2)) * error
    p = float(scipy.stats.norm.sf((share - allowed) / error)) if error > 0 else float(share <= allowed)
    return Probe(share, max(share - half, -1.0), min(share + half, 1.0), p, len(tested))


def _excess_hits(predicted: Ints, actual: Ints, labels: int) -> tuple[float, float]:
    """Return the hits beyond chance as a share of the possible ones, and the standard error under a random order of `actual`.

    Hits of a random permutation: the mean is sum a_k b_k / n; the variance is the sum over all pairs of the doubly centred
    squares / (n - 1), Hoeffding (1951), Annals of Mathematical Statistics 22:558.
    """
    n = len(actual)
    a, b = (np.bincount(side, minlength=labels) / n for side in (predicted, actual))
    chance = float(a @ b)
    possible = 1 - chance
    if possible <= 0:
        return 0.0, 0.0
    # Centred squares by class pair: 1(j = k) - b_j - a_k + chance, weighted by n a_j · n b_k.
    centred = np.subtract.outer(-b, a) + chance
    squares = float(np.einsum("j,jk,k", a, centred**2, b)) + float(np.sum(a * b * (1 + 2 * (chance - a - b))))
    hits = float(np.mean(predicted == actual))
    return (hits - chance) / possible, float(np.sqrt(max(squares, 0.0) * n**2 / (n - 1)) / n / possible)


def _neighbours(texts: list[str], trained: int, tested: Ints) -> tuple[Ints, Ints]:
    """Return the indices of `tested` texts with a neighbour among the first `trained` texts, and the neighbours' indices.

    A text that is itself among the first is its own neighbour. Otherwise the neighbour is the text that shares most of its rare words,
    weighted by rarity; texts that share none have no neighbour.
    """
    repeated, new = tested[tested < trained], tested[tested >= trained]
    if not trained or not len(new):
        return repeated, repeated
    vocabulary: dict[str, int] = {}
    bags = [[vocabulary.setdefault(word, len(vocabulary)) for word in set(text.split())] for text in texts[:trained]]
    train_words = _matrix(bags, len(vocabulary))
    bags = [[vocabulary[word] for word in set(texts[row].split()) if word in vocabulary] for row in new.tolist()]
    counts = np.asarray(train_words.sum(axis=0)).reshape(-1)
    weights = np.where(counts <= _COMMON, np.log1p(trained / np.maximum(counts, 1)), 0.0)
    weighted = _matrix(bags, len(vocabulary)) @ scipy.sparse.diags_array(weights).tocsr()
    weighted.eliminate_zeros()
    similarity = (weighted @ train_words.T).tocsr()
    similar = np.flatnonzero(np.diff(similarity.indptr) > 0)
    nearest = np.array([_largest(similarity, row) for row in similar.tolist()], dtype=np.int64)
    return np.concatenate([repeated, new[similar]]), np.concatenate([repeated, nearest])


def _largest(matrix: scipy.sparse.csr_array, row: int) -> int:
    """Return the column with the largest value of a row, the first of equals."""
    start, end = matrix.indptr[row], matrix.indptr[row + 1]
    values, columns = matrix.data[start:end], matrix.indices[start:end]
    return int(columns[values == values.max()].min())


def _matrix(bags: list[list[int]], width: int) -> scipy.sparse.csr_array:
    """Return one row per bag of word indices, with ones."""
    lengths = [len(bag) for bag in bags]
    columns = np.array([number for bag in bags for number in bag], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return scipy.sparse.csr_array((np.ones(len(columns)), columns, starts), shape=(len(bags), width))
