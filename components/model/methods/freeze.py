"""Freezing: the embeddings and the first layers stay as they are in the base; the layers above them and the head learn.

Lower layers hold what most tasks share: Lee, Tang & Lin, "What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning" (2019).
With `unfreeze_every` they begin to learn one by one, from the top: Howard & Ruder, "Universal Language Model Fine-tuning for Text
Classification" (2018), section 3.3. `components.training.trainer.gradual_unfreezing` does that while training runs.
"""

from typing import Any

from components.core.errors import BadParams
from components.model.support.layers import depths, head_depth

FIELDS = ("frozen_layers", "unfreeze_every")


def prepare(model: Any, *, frozen_layers: int, unfreeze_every: float) -> Any:
    """Freeze the embeddings and the first `frozen_layers` layers of `model`; -1 freezes everything but the head.

    With `unfreeze_every` above 0 all of it may learn, since all of it will: whoever trains freezes it at the start.

    Raises:
        BadParams: the model has fewer layers, or no head of its own.
        BadModel: its layers cannot be told apart.
    """
    depth, layers = depths(model), head_depth(model) - 1
    if frozen_layers > layers:
        raise BadParams(f"params.yaml: train.frozen_layers is {frozen_layers}, but the base model has {layers} layers; -1 freezes them all")
    upto = layers if frozen_layers == -1 else frozen_layers
    if not any(at > upto for at in depth.values()):
        raise BadParams(
            f"params.yaml: train.frozen_layers is {frozen_layers}: nothing would learn, there is no head with weights of its own"
        )
    if not unfreeze_every:
        freeze(model, depth, upto)
    return model


def freeze(model: Any, depth: dict[str, int], upto: int) -> None:
    """Let the weights of `model` above the depth `upto` learn, and no other."""
    for name, weights in model.named_parameters():
        weights.requires_grad_(depth[name] > upto)


def finish(model: Any) -> Any:
    """Return `model`, all of whose weights may learn again."""
    return model.requires_grad_(True)
