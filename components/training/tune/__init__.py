"""The search for training settings: Optuna lives here and nowhere else.

The step is `components.training.tune.step`; the settings alone, offered here, cost no import of torch.
"""

from components.training.tune.settings import TuneParams, check_metrics, searched

__all__ = ["TuneParams", "check_metrics", "searched"]
