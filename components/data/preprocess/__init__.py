"""Clean, deduplicate, split and encode the validated rows for training and testing; the step is in `step.py`."""

from components.data.preprocess.settings import PreprocessParams, check_copies

__all__ = ["PreprocessParams", "check_copies"]
