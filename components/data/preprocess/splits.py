"""Stable splits: a row's split follows from its group and the seed, never from its position or from the other rows."""

import hashlib
from collections.abc import Iterable

SPLITS = ("test", "validation", "train")
"""In the order in which a duplicate is kept."""


def fraction(seed: int, key: str) -> float:
    """Return a number in [0, 1) that is uniform over keys: the first 64 bits of a sha256."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8]) / 2**64


def split_of(seed: int, key: str, test_share: float, validation_share: float) -> str:
    """Return the split of the group `key`."""
    place = fraction(seed, key)
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation_share else "train"


def assign(groups: Iterable[str], seed: int, test_share: float, validation_share: float) -> list[str]:
    """Return the split of each group in `groups`."""
    keys = list(groups)
    known = {key: split_of(seed, key, test_share, validation_share) for key in set(keys)}
    return [known[key] for key in keys]
