"""Gradual unfreezing: frozen layers begin to learn one by one, from the top, the embeddings last.

Howard & Ruder (2018), section 3.3. What is frozen follows from the number of the step alone, so a resume goes on as it was. The optimizer
knows all weights from the start; one without a gradient is left alone, weight decay included.
"""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.model.methods.freeze import freeze
from components.model.support.layers import depths, head_depth

_ROUNDING = 1e-9


class GradualUnfreezing(TrainerCallback):
    """Freezes what must not learn yet."""

    def __init__(self, model: Any, frozen_layers: int, every: float) -> None:
        """Start with the first `frozen_layers` layers of `model` frozen (-1: all), and thaw one more every `every` epochs."""
        self._model = model
        self._depth = depths(model)
        self._frozen = head_depth(model) - 1 if frozen_layers == -1 else frozen_layers
        self._every = every

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Freeze what is frozen in the coming step."""
        epochs = state.global_step * args.num_train_epochs / state.max_steps
        freeze(self._model, self._depth, self._frozen - int(epochs / self._every + _ROUNDING))
