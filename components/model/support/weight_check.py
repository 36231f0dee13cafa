"""Checks that a model folder has all weights of its config, because transformers draws missing weights at random.

Only a head may be drawn at random. Weights in the file that the config does not need are ignored, except whole layers.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from components.core.errors import BadModel, listed

log = logging.getLogger(__name__)

_POOLER = "pooler"
"""Always belongs to the head: checkpoints of language models have none, and most tasks do not use it."""

_SHOWN = 5


def refuse_incomplete(model: Any, loading_info: Mapping[str, Any], folder: Path, *, head: bool, fresh: tuple[str, ...] = ()) -> None:
    """Refuse `model`, loaded from `folder`, if the folder lacks weights; `loading_info` is transformers'.

    These may be missing, and are logged: a pooler, the modules named in `fresh` and, with `head`, everything outside the pretrained part.
    Raise BadModel if weights are missing or have a wrong shape, or layers are left over; names the tensors.
    """
    shapes = {name: (tuple(stored), tuple(expected)) for name, stored, expected in loading_info["mismatched_keys"]}
    drawn = {name for name in (*loading_info["missing_keys"], *shapes) if _may_be_drawn(model, name, head, fresh)}
    missing = sorted(set(loading_info["missing_keys"]) - drawn)
    misshapen = [f"{name} ({shapes[name][0]} instead of {shapes[name][1]})" for name in sorted(shapes) if name not in drawn]
    extra = _extra_layers(model, loading_info["unexpected_keys"])
    faults = [
        f"{fault} {len(names)} {'tensor' if len(names) == 1 else 'tensors'}: {listed(names, _SHOWN)}"
        for fault, names in (("lacks", missing), ("has a wrong shape for", misshapen), ("has, in layers beyond config.json,", extra))
        if names
    ]
    if faults:
        raise BadModel(
            f"the model in {folder} does not match its config.json, read as {type(model).__name__}: it {'; it '.join(faults)}. "
            "Missing weights would be initialised randomly. Fetch the folder again, or correct its config.json"
        )
    if modules := sorted({name.rpartition(".")[0] or name for name in drawn}):
        log.info("the model in %s lacks %s: initialised randomly", folder, listed(modules, _SHOWN))


def refuse_not_finite(folder: Path) -> None:
    """Raise BadModel, with file and tensors, if weights are NaN or infinite."""
    import torch
    from safetensors import safe_open

    for path in sorted((*folder.glob("*.safetensors"), *folder.glob("*/*.safetensors"))):
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            bad = [name for name in names if not _finite(torch, file.get_tensor(name))]
        if bad:
            where = path.relative_to(folder)
            raise BadModel(
                f"{where} has NaN or infinite values in {len(bad)} of {len(names)} tensors: {listed(bad, _SHOWN)}; fetch the folder again"
            )


def stored(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """Return the tensors `names` that the safetensors files of `folder` contain."""
    from safetensors import safe_open

    requested, tensors = set(names), dict[str, Any]()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            tensors |= {name: file.get_tensor(name) for name in requested.intersection(file.keys())}
    return tensors


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
    """Return the names of encoder, decoder and embeddings that are direct children of a model."""
    parts = [id(part) for part in (model.get_encoder(), model.get_decoder(), model.get_input_embeddings())]
    return {name for name, part in model.named_children() if id(part) in parts}


def _extra_layers(model: Any, unexpected: Iterable[str]) -> list[str]:
    """Return the names that differ from a weight of the model only in the layer number."""
    prefix = f"{model.base_model_prefix}."

    def form(name: str) -> str:
        return re.sub(r"\.\d+\.", ".#.", f".{name.removeprefix(prefix)}")

    own = {form(name) for name in model.state_dict()}
    return sorted(name for name in unexpected if "#" in form(name) and form(name) in own)
