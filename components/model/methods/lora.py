"""LoRA: the base is frozen; products of two thin matrices, added to some of its linear layers, learn, and so does the head.

W x becomes W x + (alpha / rank) B A x, A of shape (rank, in) drawn at random, B of shape (out, rank) zero at the start: Hu et al.,
"LoRA: Low-Rank Adaptation of Large Language Models" (2021). DoRA also learns the column norms of W: Liu et al. (2024).
When training ends, the adapters are merged into W: the model that is saved, evaluated and served is a plain one. The learned weights
can also be stored separately, in peft's own files, and merged into the same base again.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from components.core.errors import BadParams
from components.core.section import Section
from components.model.support.layers import depths, head_depth

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # peft's names
IN_PLACE = False


class Params(Section):
    """The adapters, and how a version that was trained with them is stored."""

    renamed: ClassVar[Mapping[str, str]] = {"lora_registered": "lora_store"}

    lora_rank: int = Field(8, ge=1, le=65_536, description="lora: rows of the thin matrices")
    lora_alpha: float = Field(16, gt=0, le=65_536, description="lora: an adapter is scaled by lora_alpha / lora_rank")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="lora: fraction of an adapter's inputs that is dropped")
    lora_targets: str = Field(
        "default", min_length=1, description="lora: default (peft's for the architecture), all-linear, or names of linear layers"
    )
    lora_dora: bool = Field(False, description="lora: learn norm and direction of the weights separately (DoRA)")
    lora_store: Literal["merged", "adapter"] = Field(
        "merged", description="lora: a version stores the merged model, or only the adapter, which is merged into the base on loading"
    )


def prepare(model: Any, params: Params) -> Any:
    """Return `model` with adapters at `lora_targets` and a head that is trained in full.

    Raise BadParams if `lora_targets` names no linear layer of the model.
    """
    from peft import LoraConfig, get_peft_model
    from torch.nn import Linear

    targets = _targets(model, params.lora_targets)
    config = LoraConfig(
        r=params.lora_rank,
        lora_alpha=params.lora_alpha,  # type: ignore[arg-type]  # a ratio's numerator: peft only divides it
        lora_dropout=params.lora_dropout,
        target_modules=targets,
        modules_to_save=_head_modules(model) or None,
        use_dora=params.lora_dora,
        fan_in_fan_out=not isinstance(model.get_submodule(targets[0]), Linear),
    )
    with _ignore_renamed_property():
        return get_peft_model(model, config)


def finish(model: Any) -> Any:
    """Return the base model with the adapters added to its weights."""
    with _one_thread():
        return model.merge_and_unload().requires_grad_(True)


@dataclass(frozen=True)
class AdapterWeights:
    """The learned weights without the base: peft's configuration, and on the CPU the weights of adapters and head by peft's names."""

    config: dict[str, Any]
    weights: dict[str, Any]

    def write(self, folder: Path, base: str | None, revision: str | None) -> None:
        """Write peft's two files into `folder`, always the same bytes; `base` and `revision` identify a base on the hub."""
        from safetensors.torch import save_file

        config = self.config | {"base_model_name_or_path": base, "revision": revision}
        (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        save_file(self.weights, folder / WEIGHTS, metadata={"format": "pt"})


def learned_weights(model: Any) -> AdapterWeights:
    """Return the learned weights of the model that `prepare` returned; call it before `finish`, which removes the adapters."""
    from peft import get_peft_model_state_dict

    config = model.peft_config["default"].to_dict() | {"inference_mode": True}
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    return AdapterWeights({name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}, weights)


def restore(model: Any, folder: Path) -> Any:
    """Return the base model `model` merged with the files that `AdapterWeights.write` wrote into `folder`."""
    from peft import PeftModel

    with _ignore_renamed_property():
        return finish(PeftModel.from_pretrained(model, str(folder), torch_device="cpu"))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread: without AVX-512, the bits of B A depend on the number of threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _ignore_renamed_property() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft uses the old name of a property
        yield


def _head_modules(model: Any) -> list[str]:
    """Return the names of the head's modules, which are trained in full.

    The output layer of a language model is left out because it is pretrained, and so are modules that are tied to the embeddings.
    """
    head = head_depth(model)
    own = {name for name, depth in depths(model).items() if depth == head}
    weights = {id(weights) for name, weights in model.named_parameters() if name in own}
    names = sorted({name.rpartition(".")[0] for name in own})
    output = getattr(model, "get_output_embeddings", lambda: None)()
    modules = [(name, model.get_submodule(name)) for name in names]
    return [name for name, module in modules if module is not output and all(id(tensor) in weights for tensor in module.parameters())]


def _targets(model: Any, setting: str) -> list[str]:
    """Return the full names of the linear layers that get an adapter; never one of the head or one tied to the embeddings."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer, with a transposed weight

    depth, head = depths(model), head_depth(model)
    linear = [
        name for name, part in model.named_modules() if isinstance(part, (Linear, Conv1D)) and 0 < depth.get(f"{name}.weight", head) < head
    ]
    known_settings = {"default": list(DEFAULTS.get(model.config.model_type, ())), "all-linear": list[str]()}
    endings = known_settings.get(setting, setting.replace(",", " ").split())
    targets = [name for name in linear if not endings or any(f".{name}".endswith(f".{ending}") for ending in endings)]
    if missing := [ending for ending in endings if setting != "default" and not any(f".{name}".endswith(f".{ending}") for name in linear)]:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        raise BadParams(
            f"params.yaml: train.lora_targets names {', '.join(map(repr, missing))}; the linear layers of the base are: {known}"
        )
    return targets or linear
