"""Loads model folders in hub layout safely: safetensors only, no custom code, no network.

Torch and transformers are imported inside the functions, so that importing a task stays cheap.
"""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.core.documents import read_json
from components.core.errors import BadModel, BadParams, NotFound, first_line
from components.model.support.foreign_code import refuse_foreign_code
from components.model.support.weight_check import refuse_incomplete, refuse_not_finite

PIECES = ("sacremoses", "sentencepiece")
"""The packages that read source.spm and target.spm; without the first, a tokenizer splits texts differently than in training."""

_UNLIMITED = 1_000_000  # a tokenizer without a limit has 1e30


def load_tokenizer(base: Path, *, pad: str = "refuse", fast: str = "") -> Any:
    """Load the tokenizer of a model folder.

    `pad` is the policy for a tokenizer without a padding token, as in most language models: `refuse`, or `eos` to use its end token.
    `fast` names what a tokenizer lacks that is not a fast one, and must be; empty: any is accepted.

    Raises:
        NotFound: the folder is missing.
        BadModel: the tokenizer is missing, needs custom code or a package that is not installed, or has no padding token.
    """
    from transformers import AutoTokenizer

    config(base)  # raises if it is not a model folder
    refuse_foreign_code(base)
    if fault := lacks_packages(base):
        raise BadModel(f"the tokenizer in {base} {fault}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError and more for a broken folder
        raise BadModel(f"the tokenizer in {base} cannot be loaded: {first_line(error)}") from error
    if tokenizer.pad_token is None and pad == "eos" and tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        token = tokenizer.eos_token or "[PAD]"
        raise BadModel(
            f"the tokenizer in {base} has no padding token, so texts cannot be batched; choose another base.model, or copy it into a "
            f'folder and set "pad_token": {json.dumps(token)} (or another token of its vocabulary) in tokenizer_config.json'
        )
    if fast and not tokenizer.is_fast:
        raise BadModel(f"the tokenizer in {base} {fast}; choose a base.model with a fast tokenizer (tokenizer.json)")
    return tokenizer


def lacks_packages(base: Path) -> str:
    """Return a message about packages that the tokenizer needs and that are not installed; an empty string if there are none."""
    missing = [name for name in PIECES if any(base.glob("*.spm")) and importlib.util.find_spec(name) is None]
    return f"needs the package {' and '.join(missing)}: python -m pip install 'retune[marian]'" if missing else ""


def longest_input(base: Path, tokenizer: Any) -> int:
    """Return the maximum number of input tokens of the model in `base`."""
    own = config(base)
    own = own["encoder"] if isinstance(own.get("encoder"), dict) else own  # an encoder-decoder pair has one config per model
    positions = own.get("max_position_embeddings") or own.get("n_positions") or _UNLIMITED
    if own.get("model_type") in OFFSET_POSITIONS:
        positions -= int(own.get("pad_token_id") or 0) + 1
    return int(min(tokenizer.model_max_length, positions, _UNLIMITED))


OFFSET_POSITIONS = ("roberta", "camembert", "xlm-roberta", "longformer", "mpnet")  # count positions from the padding id on


def load_model(
    auto: str | type, folder: Path, *, head: bool = True, fresh: tuple[str, ...] = (), dtype: Any = None, **settings: Any
) -> Any:
    """Load `folder` with the class `auto`, or transformers' class of that name, in float32 or in `dtype`.

    Only these weights may be missing, and are then drawn at random: a pooler, the modules named in `fresh` and, with `head`, everything
    outside the pretrained part. `settings` go to the class's `from_pretrained`.
    Raise BadModel if the folder has no safetensors weights, needs custom code, lacks weights, or cannot be read as that class.
    """
    import torch
    import transformers

    refuse_foreign_code(folder)
    refuse_pickles(folder)
    transformers.logging.set_verbosity_error()  # a new head is intended
    transformers.logging.disable_progress_bar()
    model_class: Any = getattr(transformers, auto) if isinstance(auto, str) else auto
    offline = {"use_safetensors": True, "trust_remote_code": False, "local_files_only": True}
    try:
        model, loading_info = model_class.from_pretrained(
            folder, **offline, dtype=dtype or torch.float32, output_loading_info=True, **settings
        )
    except Exception as error:  # see load_tokenizer
        raise BadModel(
            f"the model in {folder} cannot be loaded as {model_class.__name__.removeprefix('AutoModelFor')}: {first_line(error)}"
        ) from error
    refuse_incomplete(model, loading_info, folder, head=head, fresh=fresh)
    return model


def label_settings(labels: Sequence[str]) -> dict[str, Any]:
    """Return the config settings that name the model outputs."""
    return {"num_labels": len(labels), "id2label": dict(enumerate(labels)), "label2id": {name: index for index, name in enumerate(labels)}}


def refuse_unloadable(folder: Path) -> None:
    """Raise BadModel if a base model cannot be loaded as the architecture of its config.json, in its own precision."""
    import transformers

    refuse_foreign_code(folder)
    refuse_not_finite(folder)
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    # Our own CRF tagger loads as the tagger without its CRF.
    named: Any = getattr(transformers, str((config.architectures or [""])[0]).removesuffix("WithCrf"), None)
    default = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModel"
    load_model(named if getattr(named, "config_class", None) is type(config) else default, folder, dtype="auto")


def config(folder: Path) -> dict[str, Any]:
    """Return config.json; raise NotFound if the folder is missing, BadModel if it has no readable config.json."""
    if not folder.exists():
        raise NotFound(f"{folder} is missing; `retune run` fetches the base model into data/base")
    if not (folder / "config.json").exists():
        raise BadModel(f"{folder} has no config.json: expected a model in hub layout")
    return settings(folder / "config.json")


def settings(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file `path`, or an empty one if the file does not exist; raise BadModel if the file cannot be read."""
    if not path.exists():
        return {}
    try:
        content = read_json(path)
    except BadParams as error:
        raise BadModel(str(error)) from None
    if not isinstance(content, dict):
        raise BadModel(f"{path} is not a JSON object")
    return content


def refuse_pickles(folder: Path) -> None:
    """Raise BadModel if a folder has no safetensors weights."""
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
    found = f"only pickled weights ({', '.join(pickles)}), which can run code when loaded" if pickles else "no weights"
    raise BadModel(f"{folder}: expected safetensors weights, found {found}")
