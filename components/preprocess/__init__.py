"""Clean, deduplicate, split and encode: from validated rows to what may be learnt from and what is kept for the test."""

from components.preprocess.params import PreprocessParams
from components.preprocess.step import preprocess

__all__ = ["PreprocessParams", "preprocess"]
