"""Words and length bands of texts."""

from collections.abc import Sequence

UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""The scripts without spaces between words, as ranges of a regular expression: Thai, Lao, Burmese, Khmer, kana, Han."""


def length_band(words: int, bounds: Sequence[int]) -> str:
    """Return the band of a number of words; `bounds` are the last number of each band but the highest."""
    lowest = [1, *(bound + 1 for bound in bounds)]
    return next(
        (f"{low}–{bound} words" for low, bound in zip(lowest, bounds, strict=False) if words <= bound), f"{lowest[-1]} words or more"
    )
