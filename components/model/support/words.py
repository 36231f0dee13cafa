"""Length bands of texts in words."""

from collections.abc import Sequence


def length_band(words: int, bounds: Sequence[int]) -> str:
    """Return the band of a number of words; `bounds` are the last number of each band but the highest."""
    lowest = [1, *(bound + 1 for bound in bounds)]
    return next(
        (f"{low}–{bound} words" for low, bound in zip(lowest, bounds, strict=False) if words <= bound), f"{lowest[-1]} words or more"
    )
