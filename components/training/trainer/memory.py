"""Stand-in until the branch decision has its own."""

from typing import Any

from components.training.trainer.fit import fit


def fit_within_memory(task: Any, base: Any, learn: Any, settings: Any, **rest: Any) -> Any:
    """Return the result of `fit` and the settings."""
    return fit(task, base, learn, settings, **rest), settings
