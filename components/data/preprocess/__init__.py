"""Clean, deduplicate, split and encode the validated rows for training and testing; the step is in `step.py`."""
