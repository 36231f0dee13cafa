"""Where a weight stands in a transformer: its embeddings, one of its layers, or its head."""

from typing import Any

from components.core.errors import BadModel

Stack = tuple[str, int]
"""The name of a list of layers, and their number."""


_BESIDE = {"encoder.LayerNorm": 0, "encoder.conv": 1}
"""DeBERTa's parts beside the layers: the norm of its relative positions, and what is added to the first layer."""


def stacks_of(model: Any) -> list[Stack]:
    """Return the lists of layers within the pretrained part of `model`: one, or the encoder's and the decoder's.

    Raises:
        BadModel: there is none.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        halves = [next(name for name, part in model.named_modules() if part is half) for half in (model.get_encoder(), _decoder(model))]
    else:
        halves = [str(model.base_model_prefix)]
    return [_outermost(model, half) for half in halves]


def head_depth(model: Any) -> int:
    """Return the depth of the head, which has no weights of its own where the output layer is tied to the embeddings."""
    return 1 + sum(count for _, count in stacks_of(model))


def depths(model: Any) -> dict[str, int]:
    """Return each parameter's depth: 0 the embeddings, 1 to n the layers, n + 1 the head; a decoder's layers follow its encoder's.

    The head is what comes after the layers: the classifier, a pooler, a last norm. A base may come without a pooler, which is then
    as random as the classifier; so is the attention that joins an encoder to a decoder made from another encoder.
    """
    stacks = stacks_of(model)
    head = 1 + sum(count for _, count in stacks)
    pretrained = "" if len(stacks) > 1 else f"{model.base_model_prefix}."
    encoder = f"{stacks[0][0].rpartition('.')[0]}." if len(stacks) > 1 else None
    found: dict[str, int] = {}
    for name, _ in model.named_parameters():
        at = _layer(name, stacks)
        if ".crossattention." in name:
            found[name] = head
        elif at is not None:
            found[name] = at
        elif beside := [depth for part, depth in _BESIDE.items() if name.startswith(f"{pretrained}{part}.")]:
            found[name] = beside[0]
        elif name.startswith(pretrained) and ("embed" in name or not any(found.values())):
            found[name] = 0
        else:
            found[name] = stacks[0][1] if encoder and name.startswith(encoder) else head
    return found


def _decoder(model: Any) -> Any:
    return model.decoder if hasattr(model, "decoder") else model.get_decoder()


def _outermost(model: Any, prefix: str) -> Stack:
    """Return the list of layers below `prefix` that lies in no other; the longest, where there are several."""
    from torch.nn import ModuleList

    lists = [(name, len(part)) for name, part in model.named_modules() if isinstance(part, ModuleList) and name.startswith(f"{prefix}.")]
    outer = [each for each in lists if not any(each[0].startswith(f"{other}.") for other, _ in lists)]
    if not outer:
        raise BadModel(f"{type(model).__name__} has no list of layers to count: use train.method full, without layer_decay and l2_sp")
    return max(outer, key=lambda found: found[1])


def _layer(name: str, stacks: list[Stack]) -> int | None:
    before = 0
    for stack, count in stacks:
        if name.startswith(f"{stack}."):
            return before + 1 + int(name.removeprefix(f"{stack}.").split(".")[0])
        before += count
    return None
