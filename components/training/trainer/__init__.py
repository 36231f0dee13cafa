"""How a model learns: the settings of the section `train` and the training that `tune` and `train` share.

Torch and transformers are imported by `fitting`, `data`, `checkpoints` and `machine`; the settings alone cost nothing.
"""

from components.training.trainer.settings import TrainParams, TrainSection, check_fields

__all__ = ["TrainParams", "TrainSection", "check_fields"]
