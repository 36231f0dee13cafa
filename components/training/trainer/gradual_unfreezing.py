"""Gradual unfreezing: frozen layers start to learn one by one, from the top, the embeddings last.

Howard & Ruder (2018), section 3.3. The step number alone decides which layers are frozen, so a resume needs no state. The optimizer
contains all weights from the start; it skips weights without a gradient, weight decay included.
"""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.model.methods.freeze import freeze
from components.model.support.layers import depths, head_depth

_ROUNDING = 1e-9


class GradualUnfreezing(TrainerCallback):
    """Freezes the layers that must not learn yet."""

    def __init__(self, model: Any, frozen_layers: int, every: float) -> None:
        """Start with the first `frozen_layers` layers of `model` frozen (-1: all), and unfreeze one more every `every` epochs."""
        self._model = model
        self._depth = depths(model)
        self._frozen = head_depth(model) - 1 if frozen_layers == -1 else frozen_layers
        self._every = every

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Set the frozen layers of the next step."""
        epochs = state.global_step * args.num_train_epochs / state.max_steps
        freeze(self._model, self._depth, self._frozen - int(epochs / self._every + _ROUNDING))
