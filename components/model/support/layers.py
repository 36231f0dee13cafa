"""The position of each weight in a transformer: the embeddings, a layer, or the head."""

from typing import Any

from components.core.errors import BadModel

Stack = tuple[str, int]
"""The name of a list of layers, and their number."""


_OUTSIDE_LAYERS = {"encoder.LayerNorm": 0, "encoder.conv": 1}
"""DeBERTa's modules outside its layers: the norm of its relative positions, and the convolution added to the first layer."""


def stacks_of(model: Any) -> list[Stack]:
    """Return the lists of layers in the pretrained part of `model`: one, or the encoder's and the decoder's.

    Raise BadModel if the model has no list of layers.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        halves = [next(name for name, part in model.named_modules() if part is half) for half in (model.get_encoder(), _decoder(model))]
    else:
        halves = [str(model.base_model_prefix)]
    return [_outermost(model, half) for half in halves]


def head_depth(model: Any) -> int:
    """Return the depth of the head; a head whose output layer is tied to the embeddings may have no weights."""
    return 1 + sum(count for _, count in stacks_of(model))


def depths(model: Any) -> dict[str, int]:
    """Return each parameter's depth: 0 the embeddings, 1 to n the layers, n + 1 the head; a decoder's layers follow its encoder's.

    The head is everything after the layers: the classifier, a pooler, a last norm. A pooler that is missing in the base is drawn at random
    like the classifier, and so is the cross-attention of a decoder that was made from an encoder.
    """
    stacks = stacks_of(model)
    head = 1 + sum(count for _, count in stacks)
    pretrained = "" if len(stacks) > 1 else f"{model.base_model_prefix}."
    encoder = f"{stacks[0][0].rpartition('.')[0]}." if len(stacks) > 1 else None
    result: dict[str, int] = {}
    for name, _ in model.named_parameters():
        layer = _layer(name, stacks)
        if ".crossattention." in name:
            result[name] = head
        elif layer is not None:
            result[name] = layer
        elif outside := [depth for part, depth in _OUTSIDE_LAYERS.items() if name.startswith(f"{pretrained}{part}.")]:
            result[name] = outside[0]
        elif name.startswith(pretrained) and ("embed" in name or not any(result.values())):
            result[name] = 0
        else:
            result[name] = stacks[0][1] if encoder and name.startswith(encoder) else head
    return result


def _decoder(model: Any) -> Any:
    return model.decoder if hasattr(model, "decoder") else model.get_decoder()


def _outermost(model: Any, prefix: str) -> Stack:
    """Return the outermost list of layers below `prefix`, the longest if there are several."""
    from torch.nn import ModuleList

    lists = [(name, len(part)) for name, part in model.named_modules() if isinstance(part, ModuleList) and name.startswith(f"{prefix}.")]
    outer = [(name, size) for name, size in lists if not any(name.startswith(f"{parent}.") for parent, _ in lists)]
    if not outer:
        raise BadModel(f"{type(model).__name__} has no list of layers; set train.method to full, without layer_decay and l2_sp")
    return max(outer, key=lambda stack: stack[1])


def _layer(name: str, stacks: list[Stack]) -> int | None:
    before = 0
    for stack, count in stacks:
        if name.startswith(f"{stack}."):
            return before + 1 + int(name.removeprefix(f"{stack}.").split(".")[0])
        before += count
    return None
