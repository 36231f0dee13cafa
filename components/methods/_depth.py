"""Where a weight stands in a transformer: its embeddings, one of its layers, or its head."""

from typing import Any

from components.errors import BadModel


def layers_of(model: Any) -> tuple[str, int]:
    """Return the name of the list of layers within the pretrained part of `model`, and their number.

    Raises:
        BadModel: there is none.
    """
    from torch.nn import ModuleList

    prefix = str(model.base_model_prefix)
    lists = [(name, len(part)) for name, part in model.named_modules() if isinstance(part, ModuleList) and name.startswith(f"{prefix}.")]
    if not lists:
        raise BadModel(f"{type(model).__name__} has no list of layers to count: use train.method full, without layer_decay and l2_sp")
    return max(lists, key=lambda found: found[1])


def depths(model: Any) -> dict[str, int]:
    """Return each parameter's depth: 0 the embeddings, 1 to n the layers, n + 1 the head.

    The head is what comes after the layers: the classifier, a pooler, a last norm. A base may come without a pooler, which is then
    as random as the classifier.
    """
    layers, count = layers_of(model)
    pretrained = f"{model.base_model_prefix}."
    found: dict[str, int] = {}
    for name, _ in model.named_parameters():
        if name.startswith(f"{layers}."):
            found[name] = 1 + int(name.removeprefix(f"{layers}.").split(".")[0])
        elif name.startswith(pretrained) and ("embed" in name or not any(found.values())):
            found[name] = 0
        else:
            found[name] = count + 1
    return found
