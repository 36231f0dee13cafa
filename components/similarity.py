"""How much alike two texts are, and which texts have a near copy among others.

Texts are compared by their shingles: words and pairs of adjacent words, without case and punctuation.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

from datasketch import MinHash, MinHashLSH

_PERMUTATIONS = 128
# Candidates are verified, so a false one costs little and a missed one is a leak: recall at the threshold is then above 96 %.
_WEIGHTS = (0.02, 0.98)
_STEEPEST = 0.95  # LSH has too few bands above this; verification still asks for the threshold itself
_VERIFIED = 200  # candidates of one text: in a crowd of near copies a twin is found, and not always the closest
# Thai, Lao, Burmese, Khmer, kana, Han: scripts that put no space between words.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_CHARACTER = re.compile(rf"[{_UNSPACED}]")


def words(text: str) -> list[str]:
    """Return the words of `text` in their order, without case and punctuation; in scripts without spaces, the characters."""
    return _TOKEN.findall(text.casefold())


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


def closest(texts: Sequence[str], others: Sequence[str], threshold: float) -> dict[int, tuple[int, float]]:
    """Return, for each place in `texts` that has one, the place of the most similar of `others` and the similarity.

    The similarity is Jaccard's, of the shingles, and `threshold` or more; of equally similar ones the first counts. Candidates come from
    MinHash LSH (datasketch) and are verified exactly, so what is found is so, and about one pair in thirty at the threshold is missed.
    """
    if not texts or not others:
        return {}
    mine, theirs = ([shingles(text) for text in each] for each in (texts, others))
    first = {one: place for place, one in reversed(list(enumerate(theirs)))}
    found = {place: (first[one], 1.0) for place, one in enumerate(mine) if one in first}
    left = [place for place in range(len(texts)) if place not in found]
    index = MinHashLSH(threshold=min(threshold, _STEEPEST), num_perm=_PERMUTATIONS, weights=_WEIGHTS)
    with index.insertion_session() as session:
        for place, signature in enumerate(_signatures(theirs)):
            session.insert(place, signature)
    for place, signature in zip(left, _signatures([mine[place] for place in left]), strict=True):
        alike = [(_jaccard(mine[place], theirs[twin]), -twin) for twin in sorted(index.query(signature))[:_VERIFIED]]
        if alike and max(alike)[0] >= threshold:
            similarity, twin = max(alike)
            found[place] = (-twin, similarity)
    return dict(sorted(found.items()))


def _signatures(shingled: Sequence[frozenset[str]]) -> list[MinHash]:
    return list(MinHash.bulk([[shingle.encode() for shingle in one] for one in shingled], num_perm=_PERMUTATIONS)) if shingled else []


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    common = len(one & other)
    return common / (len(one) + len(other) - common)
