"""Optimizers and schedules: what Trainer does not build by itself.

AdamW with one learning rate is Trainer's own. Everything else is built here, from the same two kinds of weights: those that decay,
and biases and norms, which do not.
"""

import math
from collections import defaultdict
from collections.abc import Collection
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.optimization import Adafactor

from components.model.support.layers import depths, head_depth
from components.training.trainer.settings import TrainParams


def build_optimizer(model: Any, decayed: Collection[str], settings: TrainParams) -> torch.optim.Optimizer:
    """Return the optimizer that `settings` ask for over the weights of `model` that learn; `decayed` are the names that decay.

    Adam and SGD add weight decay to the gradient (L2), AdamW and Adafactor take it off the weights (Loshchilov & Hutter, 2019).
    """
    groups, rate = grouped(model, decayed, settings), settings.learning_rate
    match settings.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, fused=True)
        case "adam":
            return torch.optim.Adam(groups, lr=rate, fused=True)
        case "sgd":
            nesterov = settings.nesterov and settings.momentum > 0  # the same as plain SGD without momentum, which torch refuses
            return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, nesterov=nesterov)
        case "adafactor":
            return Adafactor(groups, lr=rate, scale_parameter=False, relative_step=False)


def grouped(model: Any, decayed: Collection[str], settings: TrainParams) -> list[dict[str, Any]]:
    """Return parameter groups by learning rate and weight decay, the highest rate first: that is the one that is logged.

    The head learns at `learning_rate`, each layer below at `layer_decay` times the rate of the one above, the embeddings at the
    lowest: Howard & Ruder, "Universal Language Model Fine-tuning for Text Classification" (2018), section 3.2.
    """
    depth, top = (depths(model), head_depth(model)) if settings.layer_decay < 1 else ({}, 0)
    groups: dict[tuple[int, bool], list[Any]] = defaultdict(list)
    for name, weights in model.named_parameters():
        if weights.requires_grad:
            groups[top - depth.get(name, top), name not in decayed].append(weights)
    return [
        {
            "params": weights,
            "lr": settings.learning_rate * settings.layer_decay**below,
            "weight_decay": 0.0 if bare else settings.weight_decay,
        }
        for (below, bare), weights in sorted(groups.items(), key=lambda group: group[0])
    ]


class WarmPlateau(LRScheduler):
    """A rate that rises linearly, stays, and is multiplied by `factor` when the metric has not improved for too long.

    As torch's ReduceLROnPlateau, which has no warm-up: mode max, threshold 0. Its whole state is in `state_dict`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, warmup: int, factor: float, patience: int) -> None:
        """Rise over `warmup` steps; tolerate `patience` evaluations without a better metric."""
        self._warmup = warmup
        self._factor = factor
        self._patience = patience
        self.scale = 1.0
        self.best = -math.inf
        self.worse = 0
        super().__init__(optimizer)

    def get_lr(self) -> list[float | torch.Tensor]:
        """Return the rate of each group for the next step."""
        share = min(1.0, self.last_epoch / self._warmup) if self._warmup else 1.0
        return [base * share * self.scale for base in self.base_lrs]

    def note(self, value: float) -> None:
        """Take in an evaluation's metric, and lower the rate from the next step on where it is time."""
        self.worse = 0 if value > self.best else self.worse + 1
        self.best = max(self.best, value)
        if self.worse > self._patience:
            self.scale *= self._factor
            self.worse = 0
            for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
                group["lr"] = rate
            self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


class Plateau(TrainerCallback):
    """Tells the schedule each evaluation's metric."""

    def __init__(self, metric: str) -> None:
        """Report `metric`."""
        self._metric = f"eval_{metric}"

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, lr_scheduler: Any = None, **_: Any
    ) -> None:
        """Report the evaluation to a WarmPlateau."""
        lr_scheduler.note(float(metrics[self._metric]))
