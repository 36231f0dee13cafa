"""LoRA: the base stays as it is; products of two thin matrices, added to some of its linear layers, learn, and so does the head.

W x becomes W x + (alpha / rank) B A x, A of shape (rank, in) drawn at random, B of shape (out, rank) zero at the start: Hu et al.,
"LoRA: Low-Rank Adaptation of Large Language Models" (2021). DoRA learns W's column lengths beside its direction: Liu et al. (2024).
The adapters are merged into W when training ends: what is saved, hashed, served and registered is a plain model.
"""

import warnings
from typing import Any

from components.errors import BadParams
from components.methods._depth import depths

FIELDS = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets", "lora_dora")


def prepare(model: Any, *, lora_rank: int, lora_alpha: float, lora_dropout: float, lora_targets: str, lora_dora: bool) -> Any:
    """Return `model` with adapters at `lora_targets`, and with a head that is trained in full.

    Raises:
        BadParams: `lora_targets` names no linear layer of the model.
    """
    from peft import LoraConfig, get_peft_model

    depth = depths(model)
    head = max(depth.values())
    config = LoraConfig(
        r=lora_rank,
        lora_alpha=lora_alpha,  # type: ignore[arg-type]  # a ratio's numerator: peft only divides it
        lora_dropout=lora_dropout,
        target_modules=_targets(model, depth, lora_targets),
        modules_to_save=sorted({name.rpartition(".")[0] for name, at in depth.items() if at == head}),
        use_dora=lora_dora,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft asks transformers by an older name
        return get_peft_model(model, config)


def finish(model: Any) -> Any:
    """Return the base model with the adapters added to its weights."""
    return model.merge_and_unload().requires_grad_(True)


def _targets(model: Any, depth: dict[str, int], wanted: str) -> list[str]:
    """Return the full names of the linear layers that get an adapter; never one of the head."""
    from torch.nn import Linear

    head = max(depth.values())
    linear = [name for name, part in model.named_modules() if isinstance(part, Linear) and 0 < depth[f"{name}.weight"] < head]
    endings = _usual(model) if wanted == "default" else [] if wanted == "all-linear" else wanted.replace(",", " ").split()
    found = [name for name in linear if not endings or any(f".{name}".endswith(f".{ending}") for ending in endings)]
    if lost := [ending for ending in endings if wanted != "default" and not any(f".{name}".endswith(f".{ending}") for name in linear)]:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        raise BadParams(f"params.yaml: train.lora_targets names {', '.join(map(repr, lost))}; the linear layers of the base are: {known}")
    return found or linear


def _usual(model: Any) -> list[str]:
    """Return the endings that peft knows for this architecture: mostly the query and value projections."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

    return list(KNOWN.get(model.config.model_type, ()))
