"""Freezing: the embeddings and the first layers keep the weights of the base; the layers above them and the head learn.

Lower layers hold features that most tasks share: Lee, Tang & Lin, "What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning"
(2019). With `unfreeze_every` the frozen layers start to learn one by one, from the top: Howard & Ruder, "Universal Language Model
Fine-tuning for Text Classification" (2018), section 3.3; `components.training.trainer.callbacks` does that during training.
"""

from typing import Any

from pydantic import Field

from components.core.errors import BadParams
from components.core.section import Section
from components.model.support.layers import depths, head_depth

IN_PLACE = True


class Params(Section):
    """How many layers are frozen, and for how long."""

    frozen_layers: int = Field(0, ge=-1, le=10_000, description="freeze: layers above the embeddings that keep the base's weights; -1: all")
    unfreeze_every: float = Field(
        0.0, ge=0, le=10_000, description="freeze: epochs after which one more layer learns, from the top, embeddings last; 0: never"
    )


def prepare(model: Any, params: Params) -> Any:
    """Freeze the embeddings and the first `frozen_layers` layers of `model`; -1 freezes everything but the head.

    With `unfreeze_every` above 0 all weights stay trainable here, because all of them will learn; the callback freezes them at the start.
    Raise BadParams if the model has fewer layers, or its head has no weights, BadModel if the layers of the model are not recognised.
    """
    depth, layers = depths(model), head_depth(model) - 1
    if params.frozen_layers > layers:
        raise BadParams(
            f"params.yaml: train.frozen_layers is {params.frozen_layers}, but the base model has {layers} layers; -1 freezes them all"
        )
    top = layers if params.frozen_layers == -1 else params.frozen_layers
    if not any(at > top for at in depth.values()):
        raise BadParams(f"params.yaml: train.frozen_layers is {params.frozen_layers}: nothing would learn, the head has no own weights")
    if not params.unfreeze_every:
        freeze(model, depth, top)
    return model


def freeze(model: Any, depth: dict[str, int], top: int) -> None:
    """Freeze the weights of `model` up to the depth `top`, and let the weights above it learn."""
    for name, weights in model.named_parameters():
        weights.requires_grad_(depth[name] > top)


def finish(model: Any) -> Any:
    """Return `model` with all weights trainable again."""
    return model.requires_grad_(True)
