"""Terms that are added to the loss of a batch during training; an evaluation uses the task's loss alone."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from components.model.support.layers import depths, head_depth

IGNORED = -100  # the label that losses skip
Weights = Mapping[str, torch.Tensor]


def trainable(model: Any, names: Collection[str]) -> dict[str, torch.Tensor]:
    """Return the trainable weights of `model` among `names`."""
    return {name: weights for name, weights in model.named_parameters() if name in names and weights.requires_grad}


def pretrained_names(model: Any) -> set[str]:
    """Return the names of the weights that come from the base: all except the head's."""
    head = head_depth(model)
    return {name for name, depth in depths(model).items() if depth < head}


def count_items(batch: Mapping[str, Any]) -> float:
    """Return the number of items that a batch mean is over: labels except -100, or rows if labels are missing or are floats."""
    labels = batch.get("labels")
    if labels is None:
        return float(len(next(value for value in batch.values() if isinstance(value, torch.Tensor))))
    return float(len(labels) if labels.is_floating_point() else (labels != IGNORED).sum())


def l1_norm(weights: Weights) -> torch.Tensor:
    """Return the sum of absolute values (L1)."""
    return torch.stack([tensor.abs().sum() for tensor in weights.values()]).sum()


def half_squared_distance(weights: Weights, origin: Weights) -> torch.Tensor:
    """Return half the squared distance to `origin`: L2-SP, Li, Grandvalet & Davoine, "Explicit Inductive Bias" (2018), equation 3."""
    return 0.5 * torch.stack([(tensor - origin[name]).square().sum() for name, tensor in weights.items()]).sum()


def divergence(first: torch.Tensor, second: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean symmetric Kullback-Leibler divergence of two sets of logits, in nats.

    The mean is over rows, or over the positions whose label is not -100 if `labels` has one per position.
    ½ (KL(p‖q) + KL(q‖p)): R-Drop, Liang et al., "Regularized Dropout for Neural Networks" (2021), equation 2.
    """
    if labels is not None and labels.shape == first.shape[:-1]:
        first, second = (logits[labels != IGNORED] for logits in (first, second))
    p, q = (torch.log_softmax(logits.float(), dim=-1) for logits in (first, second))
    return 0.5 * ((p.exp() - q.exp()) * (p - q)).sum(dim=-1).mean()
