"""What is added to the loss of a batch while training; an evaluation's loss stays the task's own."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from components.model.support.layers import depths, head_depth

IGNORED = -100  # the label that no loss counts
Weights = Mapping[str, torch.Tensor]


def learning(model: Any, names: Collection[str]) -> dict[str, torch.Tensor]:
    """Return the weights of `model` among `names` that learn."""
    return {name: weights for name, weights in model.named_parameters() if name in names and weights.requires_grad}


def pretrained(model: Any) -> set[str]:
    """Return the names of the weights that come from the base: all but the head's."""
    head = head_depth(model)
    return {name for name, at in depths(model).items() if at < head}


def items(batch: Mapping[str, Any]) -> float:
    """Return how many things a mean over a batch is of: its labels but -100, or its rows where they have none, or numbers for labels."""
    labels = batch.get("labels")
    if labels is None:
        return float(len(next(value for value in batch.values() if isinstance(value, torch.Tensor))))
    return float(len(labels) if labels.is_floating_point() else (labels != IGNORED).sum())


def absolute(weights: Weights) -> torch.Tensor:
    """Return the sum of absolute values (L1)."""
    return torch.stack([tensor.abs().sum() for tensor in weights.values()]).sum()


def half_square(weights: Weights, origin: Weights) -> torch.Tensor:
    """Return half the squared distance to `origin`: L2-SP, Li, Grandvalet & Davoine, "Explicit Inductive Bias" (2018), equation 3."""
    return 0.5 * torch.stack([(tensor - origin[name]).square().sum() for name, tensor in weights.items()]).sum()


def divergence(one: torch.Tensor, other: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean over answers of the symmetric Kullback-Leibler divergence of two sets of logits, in nats.

    An answer is a row, or each of its positions that has one of `labels`, where these are as many: padding and what is not asked have -100.
    ½ (KL(p‖q) + KL(q‖p)): R-Drop, Liang et al., "Regularized Dropout for Neural Networks" (2021), equation 2.
    """
    if labels is not None and labels.shape == one.shape[:-1]:
        one, other = (logits[labels != -100] for logits in (one, other))
    p, q = (torch.log_softmax(logits.float(), dim=-1) for logits in (one, other))
    return 0.5 * ((p.exp() - q.exp()) * (p - q)).sum(dim=-1).mean()
