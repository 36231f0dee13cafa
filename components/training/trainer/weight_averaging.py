"""Averages of the trainable weights: the average is evaluated and saved, while the weights themselves continue to learn.

An exponential moving average moves after step t by 1 - d of the way to the weights, d = min(decay, (1 + t) / (10 + t)): the smaller decay
of the first steps lets it forget the start (Polyak & Juditsky, 1992; the warm-up is TensorFlow's). Stochastic weight averaging is the mean
of the weights after each of the last steps, at a constant rate (Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
Generalization", 2018, who average once per epoch); before that, it equals the weights. A checkpoint contains the average as its model
and the weights in a separate file, so a resume is exact.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

FILE = "learning.safetensors"


Share = Callable[[int, int], float]
"""Takes the step and the number of steps; returns the fraction of the way to the weights that the average moves."""


def moving_average(decay: float) -> Share:
    """Return the share of an exponential moving average."""
    return lambda step, steps: 1 - min(decay, (1 + step) / (10 + step))


def stochastic_average(last: float) -> Share:
    """Return the share of the mean over the `last` share of the steps."""
    return lambda step, steps: 1 / max(1, step - math.floor((1 - last) * steps))


class WeightAverage(TrainerCallback):
    """Keeps the average of a model's weights."""

    def __init__(self, model: Any, share: Share) -> None:
        """Start from the trainable weights of `model`; after each step the average moves by `share` of the way to them."""
        self._share = share
        self._weights = {name: weights for name, weights in model.named_parameters() if weights.requires_grad}
        self._average = {name: weights.detach().clone() for name, weights in self._weights.items()}

    @torch.no_grad()
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Move towards the weights."""
        share = self._share(state.global_step, state.max_steps)
        torch._foreach_lerp_(list(self._average.values()), list(self._weights.values()), share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set the model's weights to the average within the block."""
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
        """Write the weights, for `load`; call it while the average is applied."""
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in self._average.items()}, folder / FILE)

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Take the model's weights, loaded from a checkpoint, as the average, and read the weights that `save` wrote."""
        stored = safetensors.torch.load_file(folder / FILE)
        for name, weights in self._weights.items():
            self._average[name].copy_(weights)
            weights.copy_(stored[name])
