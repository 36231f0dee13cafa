"""LoRA: the base stays as it is; products of two thin matrices, added to some of its linear layers, learn, and so does the head.

W x becomes W x + (alpha / rank) B A x, A of shape (rank, in) drawn at random, B of shape (out, rank) zero at the start: Hu et al.,
"LoRA: Low-Rank Adaptation of Large Language Models" (2021). DoRA learns W's column lengths beside its direction: Liu et al. (2024).
The adapters are merged into W when training ends: what is saved, evaluated and served is a plain model. What was learnt can be kept
apart as well, in peft's own files, and be merged into the same base again.
"""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.errors import BadParams
from components.model.support.layers import depths, head_depth

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # peft's names
FIELDS = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets", "lora_dora")


def prepare(model: Any, *, lora_rank: int, lora_alpha: float, lora_dropout: float, lora_targets: str, lora_dora: bool) -> Any:
    """Return `model` with adapters at `lora_targets`, and with a head that is trained in full.

    Raises:
        BadParams: `lora_targets` names no linear layer of the model.
    """
    from peft import LoraConfig, get_peft_model
    from torch.nn import Linear

    targets = _targets(model, lora_targets)
    config = LoraConfig(
        r=lora_rank,
        lora_alpha=lora_alpha,  # type: ignore[arg-type]  # a ratio's numerator: peft only divides it
        lora_dropout=lora_dropout,
        target_modules=targets,
        modules_to_save=_fresh(model) or None,
        use_dora=lora_dora,
        fan_in_fan_out=not isinstance(model.get_submodule(targets[0]), Linear),
    )
    with _older_name():
        return get_peft_model(model, config)


def finish(model: Any) -> Any:
    """Return the base model with the adapters added to its weights."""
    with _one_thread():
        return model.merge_and_unload().requires_grad_(True)


@dataclass(frozen=True)
class Learnt:
    """What was learnt, apart from the base: peft's configuration, and by peft's names the weights of adapters and head, on the CPU."""

    config: dict[str, Any]
    weights: dict[str, Any]

    def write(self, folder: Path, base: str | None, revision: str | None) -> None:
        """Write peft's two files into `folder`, always the same bytes; `base` and `revision` name a base that is the same everywhere."""
        from safetensors.torch import save_file

        config = self.config | {"base_model_name_or_path": base, "revision": revision}
        (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        save_file(self.weights, folder / WEIGHTS, metadata={"format": "pt"})


def learned_weights(model: Any) -> Learnt:
    """Return what the model that `prepare` returned has learnt; to be called before `finish`, which takes the adapters away."""
    from peft import get_peft_model_state_dict

    config = model.peft_config["default"].to_dict() | {"inference_mode": True}
    found = get_peft_model_state_dict(model, save_embedding_layers=False)
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in found.items()}
    return Learnt({name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}, weights)


def restored(model: Any, folder: Path) -> Any:
    """Return the base model `model` with what `Learnt.write` wrote into `folder` added to its weights."""
    from peft import PeftModel

    with _older_name():
        return finish(PeftModel.from_pretrained(model, str(folder), torch_device="cpu"))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread: where a processor lacks AVX-512, the bits of B A hang on the number of threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _older_name() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft asks transformers by an older name
        yield


def _fresh(model: Any) -> list[str]:
    """Return the names of the head's modules, which are trained in full.

    A language model's output layer is no head to begin with, but pretrained; and what is tied to the embeddings cannot part from them.
    """
    head = head_depth(model)
    own = {name for name, at in depths(model).items() if at == head}
    weights = {id(weights) for name, weights in model.named_parameters() if name in own}
    names = sorted({name.rpartition(".")[0] for name in own})
    output = getattr(model, "get_output_embeddings", lambda: None)()
    parts = [(name, model.get_submodule(name)) for name in names]
    return [name for name, part in parts if part is not output and all(id(each) in weights for each in part.parameters())]


def _targets(model: Any, wanted: str) -> list[str]:
    """Return the full names of the linear layers that get an adapter; never one of the head, or one that is tied to the embeddings."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer, which keeps its weight transposed

    depth, head = depths(model), head_depth(model)
    kinds = (Linear, Conv1D)
    linear = [name for name, part in model.named_modules() if isinstance(part, kinds) and 0 < depth.get(f"{name}.weight", head) < head]
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
