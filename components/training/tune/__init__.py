"""The search for training settings; the only package that imports Optuna.

The step is `components.training.tune.step`; importing the settings from here does not import torch.
"""

from components.training.tune.settings import TuneParams, check_metrics, searched

__all__ = ["TuneParams", "check_metrics", "searched"]
