"""Whether a model folder has all the weights that its config asks for: what it lacks, transformers would draw at random.

Only a head may be drawn anew. What the file has and the config does not ask for is left out, but never a whole layer.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from components.core.errors import BadModel

log = logging.getLogger(__name__)

_POOLER = "pooler"
"""Belongs to the head wherever it stands: checkpoints of language models have none, and most tasks read none."""

_SHOWN = 5


def refuse_incomplete(model: Any, found: Mapping[str, Any], folder: Path, *, head: bool, fresh: tuple[str, ...] = ()) -> None:
    """Refuse `model`, loaded from `folder`, where it has weights that the folder lacks; `found` is transformers' loading info.

    A pooler may be missing, with `head` all that is outside the pretrained part, and the modules named in `fresh`. These are logged.

    Raises:
        BadModel: with the names of the tensors.
    """
    shapes = {name: (tuple(stored), tuple(wanted)) for name, stored, wanted in found["mismatched_keys"]}
    drawn = {name for name in (*found["missing_keys"], *shapes) if _may_be_drawn(model, name, head, fresh)}
    lost = sorted(set(found["missing_keys"]) - drawn)
    other = [f"{name} ({shapes[name][0]} instead of {shapes[name][1]})" for name in sorted(shapes) if name not in drawn]
    beyond = _layers_beyond(model, found["unexpected_keys"])
    faults = [
        f"{what} {len(names)} {'tensor' if len(names) == 1 else 'tensors'}: {listed(names)}"
        for what, names in (("lacks", lost), ("has in another shape", other), ("has, in layers that config.json does not count,", beyond))
        if names
    ]
    if faults:
        raise BadModel(
            f"the model in {folder} is not what its config.json describes, read as {type(model).__name__}: it {'; it '.join(faults)}. "
            "Weights that are missing would be drawn at random. Get the folder anew, or put its config.json right"
        )
    if modules := sorted({name.rpartition(".")[0] or name for name in drawn}):
        log.info("the model in %s lacks %s: drawn at random", folder, listed(modules))


def refuse_not_finite(folder: Path) -> None:
    """Refuse weights that are not numbers, or are infinite; BadModel with file and tensors."""
    import torch
    from safetensors import safe_open

    for path in sorted((*folder.glob("*.safetensors"), *folder.glob("*/*.safetensors"))):
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            bad = [name for name in names if not _finite(torch, file.get_tensor(name))]
        if bad:
            where = path.relative_to(folder)
            raise BadModel(f"{where} has NaN or infinite values in {len(bad)} of {len(names)} tensors: {listed(bad)}; get the folder anew")


def stored(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Return those of the tensors `names` that the safetensors files of `folder` have."""
    from safetensors import safe_open

    wanted, found = set(names), dict[str, Any]()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in wanted.intersection(file.keys())}
    return found


def listed(names: Iterable[str], most: int = _SHOWN) -> str:
    """Return the first of `names`, and the number of the others."""
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def _finite(torch: Any, tensor: Any) -> bool:
    if not tensor.is_floating_point():
        return True
    return bool(torch.isfinite(tensor if tensor.dtype.itemsize > 1 else tensor.float()).all())


def _may_be_drawn(model: Any, name: str, head: bool, fresh: tuple[str, ...]) -> bool:
    parts = name.split(".")
    if _POOLER in parts or any(part in parts for part in fresh):
        return True
    if not head:
        return False
    if model.base_model is not model:
        return not name.startswith(f"{model.base_model_prefix}.")
    return model.config.is_encoder_decoder and parts[0] not in _halves(model)


def _halves(model: Any) -> set[str]:
    """Return the names of encoder, decoder and embeddings of a model that holds them itself."""
    kept = [id(part) for part in (model.get_encoder(), model.get_decoder(), model.get_input_embeddings())]
    return {name for name, part in model.named_children() if id(part) in kept}


def _layers_beyond(model: Any, unexpected: Iterable[str]) -> list[str]:
    """Return the names that differ from one of the model's own in the number of a layer alone."""
    prefix = f"{model.base_model_prefix}."

    def form(name: str) -> str:
        return re.sub(r"\.\d+\.", ".#.", f".{name.removeprefix(prefix)}")

    own = {form(name) for name in model.state_dict()}
    return sorted(name for name in unexpected if "#" in form(name) and form(name) in own)
