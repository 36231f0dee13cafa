"""The settings of the section `train` and the training loop that `tune` and `train` share.

Importing the settings alone imports neither torch nor transformers.
"""

from components.training.trainer.settings import TrainParams, TrainSection, check_fields

__all__ = ["TrainParams", "TrainSection", "check_fields"]
