"""An exponential moving average of the weights that learn: it is evaluated and saved, and the weights themselves go on learning.

After step t it moves by 1 - d of the way to the weights, d = min(decay, (1 + t) / (10 + t)): the smaller decay of the first steps lets
it forget the start (Polyak & Juditsky, 1992; the warm-up is TensorFlow's). A checkpoint holds the average as its model, and the
weights beside it, so that a resume goes on bit by bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

FILE = "learning.safetensors"


class Average(TrainerCallback):
    """The moving average beside a model."""

    def __init__(self, model: Any, decay: float) -> None:
        """Start from the weights of `model` that learn."""
        self._decay = decay
        self._weights = {name: weights for name, weights in model.named_parameters() if weights.requires_grad}
        self._average = {name: weights.detach().clone() for name, weights in self._weights.items()}

    @torch.no_grad()
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move towards the weights."""
        decay = min(self._decay, (1 + state.global_step) / (10 + state.global_step))
        torch._foreach_lerp_(list(self._average.values()), list(self._weights.values()), 1 - decay)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Let the model have the average as its weights, until the block ends."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchange weights and average."""
        for name, weights in self._weights.items():
            weights.data, self._average[name] = self._average[name], weights.data

    def save(self, folder: Path) -> None:
        """Write the weights, for `load`; to be called while the average is shown."""
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in self._average.items()}, folder / FILE)

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Take the model's weights, loaded from a checkpoint, as the average, and read the weights that `save` wrote."""
        written = safetensors.torch.load_file(folder / FILE)
        for name, weights in self._weights.items():
            self._average[name].copy_(weights)
            weights.copy_(written[name])
