"""The search for training settings: Optuna lives here and nowhere else."""

from components.tune.params import TuneParams
from components.tune.step import tune

__all__ = ["TuneParams", "tune"]
