"""Clean, deduplicate, split and encode: from validated rows to what may be learnt from and what is kept for the test.

The step is `components.data.preprocess.step`; the settings are offered here.
"""

from components.data.preprocess.settings import PreprocessParams, check_copies

__all__ = ["PreprocessParams", "check_copies"]
