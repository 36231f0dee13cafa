"""Freezing: the embeddings and the first layers stay as they are in the base; the layers above them and the head learn.

Lower layers hold what most tasks share: Lee, Tang & Lin, "What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning" (2019).
"""

from typing import Any

from components.depth import depths, head_depth
from components.errors import BadParams

FIELDS = ("frozen_layers",)


def prepare(model: Any, *, frozen_layers: int) -> Any:
    """Freeze the embeddings and the first `frozen_layers` layers of `model`; -1 freezes everything but the head.

    Raises:
        BadParams: the model has fewer layers, or nothing above them.
        BadModel: its layers cannot be told apart.
    """
    depth = depths(model)
    layers = head_depth(model) - 1
    if frozen_layers > layers:
        raise BadParams(f"params.yaml: train.frozen_layers is {frozen_layers}, but the base model has {layers} layers; -1 freezes them all")
    upto = layers if frozen_layers == -1 else frozen_layers
    if not any(at > upto for at in depth.values()):
        raise BadParams(
            f"params.yaml: train.frozen_layers is {frozen_layers}, and nothing is left to learn: the head is tied to the embeddings"
        )
    for name, weights in model.named_parameters():
        weights.requires_grad_(depth[name] > upto)
    return model


def finish(model: Any) -> Any:
    """Return `model`, all of whose weights may learn again."""
    return model.requires_grad_(True)
