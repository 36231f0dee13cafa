"""Model folders in hub layout, read with care: safetensors only, no code of the model's own, no network.

Torch and transformers are imported inside the functions: asking a task for its columns must stay cheap.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

from components.core.documents import read_json
from components.core.errors import BadModel, BadParams, NotFound, first_line
from components.model.support.foreign_code import refuse_foreign_code
from components.model.support.weight_check import refuse_incomplete, refuse_not_finite

PIECES = ("sacremoses", "sentencepiece")
"""What reads source.spm and target.spm; without the first a tokenizer splits texts in another way than its model learnt."""

_UNLIMITED = 1_000_000  # a tokenizer without a limit of its own says 1e30


def load_tokenizer(base: Path, *, pad: str = "refuse") -> Any:
    """Load the tokenizer of a model folder.

    `pad` says what becomes of one without a padding token, as most language models have none: `refuse`, or `eos`, its end token.

    Raises:
        NotThere: the folder is missing.
        BadModel: there is no tokenizer, it needs its own code or a package that is not installed, or it has no padding token.
    """
    from transformers import AutoTokenizer

    config(base)  # raises where there is no model's folder
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
            f'folder and set "pad_token": {json.dumps(token)} (or another token that it knows) in tokenizer_config.json'
        )
    return tokenizer


def lacks_packages(base: Path) -> str:
    """Say which packages the tokenizer of a model folder needs and this installation lacks; nothing where there are none."""
    missing = [name for name in PIECES if any(base.glob("*.spm")) and importlib.util.find_spec(name) is None]
    return f"needs the package {' and '.join(missing)}: python -m pip install 'retune[marian]'" if missing else ""


def longest_input(base: Path, tokenizer: Any) -> int:
    """Return the number of tokens that the model in `base` can read at most."""
    own = config(base)
    own = own["encoder"] if isinstance(own.get("encoder"), dict) else own  # a pair of models has a config of each
    positions = own.get("max_position_embeddings") or own.get("n_positions") or _UNLIMITED
    if own.get("model_type") in OFFSET_POSITIONS:
        positions -= int(own.get("pad_token_id") or 0) + 1
    return int(min(tokenizer.model_max_length, positions, _UNLIMITED))


OFFSET_POSITIONS = ("roberta", "camembert", "xlm-roberta", "longformer", "mpnet")  # count positions from the padding id on


def load_model(
    auto: str | type, folder: Path, *, head: bool = True, fresh: tuple[str, ...] = (), dtype: Any = None, **settings: Any
) -> Any:
    """Load `folder` with transformers' class of the name `auto`, or with another class, in float32 or in `dtype`.

    All weights come from the folder: drawn at random are a pooler, the modules named in `fresh` and, with `head`, which a base may lack,
    what is outside the pretrained part. `settings` go to the class's `from_pretrained`.

    Raises:
        BadModel: no safetensors weights, code of its own, missing weights, or a folder that transformers cannot read as that class.
    """
    import torch
    import transformers

    refuse_foreign_code(folder)
    refuse_pickles(folder)
    silence_transformers()
    made: Any = getattr(transformers, auto) if isinstance(auto, str) else auto
    kind = made.__name__.removeprefix("AutoModelFor")
    offline = {"use_safetensors": True, "trust_remote_code": False, "local_files_only": True}
    try:
        model, found = made.from_pretrained(folder, **offline, dtype=dtype or torch.float32, output_loading_info=True, **settings)
    except Exception as error:  # see load_tokenizer
        raise BadModel(f"the model in {folder} cannot be loaded as {kind}: {first_line(error)}") from error
    refuse_incomplete(model, found, folder, head=head, fresh=fresh)
    return model


def refuse_unloadable(folder: Path) -> None:
    """Load a base model as what its config.json says it is, in its own precision, and refuse what no task could load; BadModel."""
    import transformers

    refuse_foreign_code(folder)
    refuse_not_finite(folder)
    read = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    own: Any = getattr(transformers, str((read.architectures or [""])[0]).removesuffix("WithCrf"), None)  # ours is a tagger and a field
    usual = "AutoModelForSeq2SeqLM" if read.is_encoder_decoder else "AutoModel"
    load_model(own if getattr(own, "config_class", None) is type(read) else usual, folder, dtype="auto")


def config(folder: Path) -> dict[str, Any]:
    """Return config.json.

    Raises:
        NotThere: the folder is missing.
        BadModel: it has no config.json that can be read.
    """
    if not folder.exists():
        raise NotFound(f"{folder} is missing; `retune run` fetches the base model into data/base")
    if not (folder / "config.json").exists():
        raise BadModel(f"{folder} has no config.json: expected a model in hub layout")
    return settings(folder / "config.json")


def settings(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file `path`; nothing where there is none.

    Raises:
        BadModel: it cannot be read.
    """
    if not path.exists():
        return {}
    try:
        found = read_json(path)
    except BadParams as error:
        raise BadModel(str(error)) from None
    if not isinstance(found, dict):
        raise BadModel(f"{path} is not a JSON object")
    return found


def refuse_pickles(folder: Path) -> None:
    """Refuse a folder without safetensors; BadModel."""
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
    found = f"only pickled weights ({', '.join(pickles)}), which can run code when loaded" if pickles else "no weights"
    raise BadModel(f"{folder}: expected safetensors weights, found {found}")


def silence_transformers() -> None:
    """Keep transformers from warning of what is meant: a fresh head is what we asked for."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
