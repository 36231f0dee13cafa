"""Optimizers and schedules that Trainer does not build itself.

AdamW with a single learning rate is Trainer's. All optimizers use the same two groups: weights that decay, and biases and norms,
which do not.
"""

import math
from collections import defaultdict
from collections.abc import Collection
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler
from transformers.optimization import Adafactor

from components.model.support.layers import depths, head_depth
from components.training.trainer.settings import TrainParams


def build_optimizer(model: Any, decayed: Collection[str], settings: TrainParams) -> torch.optim.Optimizer:
    """Return the optimizer of `settings` for the trainable weights of `model`; `decayed` are the names with weight decay.

    Adam and SGD add weight decay to the gradient (L2), AdamW and Adafactor subtract it from the weights (Loshchilov & Hutter, 2019).
    """
    groups, rate = parameter_groups(model, decayed, settings), settings.learning_rate
    match settings.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, fused=True)
        case "adam":
            return torch.optim.Adam(groups, lr=rate, fused=True)
        case "sgd":
            nesterov = settings.nesterov and settings.momentum > 0  # torch refuses it without momentum, where it equals SGD
            return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, nesterov=nesterov)
        case "adafactor":
            return Adafactor(groups, lr=rate, scale_parameter=False, relative_step=False)


def parameter_groups(model: Any, decayed: Collection[str], settings: TrainParams) -> list[dict[str, Any]]:
    """Return parameter groups by learning rate and weight decay, the highest rate first, because Trainer logs the first.

    The head has the rate `learning_rate`, each layer `layer_decay` times the rate of the layer above, the embeddings the lowest:
    Howard & Ruder, "Universal Language Model Fine-tuning for Text Classification" (2018), section 3.2.
    """
    depth, top = (depths(model), head_depth(model)) if settings.layer_decay < 1 else ({}, 0)
    groups: dict[tuple[int, bool], list[Any]] = defaultdict(list)
    for name, weights in model.named_parameters():
        if weights.requires_grad:
            groups[top - depth.get(name, top), name not in decayed].append(weights)
    rate, decay, factor = settings.learning_rate, settings.weight_decay, settings.layer_decay
    ordered = sorted(groups.items(), key=lambda group: group[0])
    return [{"params": w, "lr": rate * factor**below, "weight_decay": 0.0 if bare else decay} for (below, bare), w in ordered]


class WarmPlateau(LRScheduler):
    """Learning rate that rises linearly, stays, and is multiplied by `factor` when the metric stops improving.

    Like torch's ReduceLROnPlateau with mode max and threshold 0, plus a warm-up. `state_dict` contains the whole state.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, warmup: int, factor: float, patience: int) -> None:
        """Rise over `warmup` steps; tolerate `patience` evaluations without improvement."""
        self._warmup, self._factor, self._patience = warmup, factor, patience
        self.scale, self.best, self.worse = 1.0, -math.inf, 0
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the rate of each group for the next step."""
        share = min(1.0, self.last_epoch / self._warmup) if self._warmup else 1.0
        return [base * share * self.scale for base in self.base_lrs]

    def record(self, value: float) -> None:
        """Record an evaluation's metric, and lower the rate from the next step on if the patience is used up."""
        self.worse = 0 if value > self.best else self.worse + 1
        self.best = max(self.best, value)
        if self.worse > self._patience:
            self.scale *= self._factor
            self.worse = 0
            for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
                group["lr"] = rate
            self._last_lr = [group["lr"] for group in self.optimizer.param_groups]
