"""Reads the configuration of a sentence-transformers folder: input processing, pooling, and the modules after the pooling.

`modules.json` lists the modules in order. Their types are matched by name and never imported.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.errors import BadModel, first_line
from components.model.support import pretrained

LIST, TRANSFORMER, SENTENCES = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"

POOLINGS: Mapping[str, str] = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
"""Pooling modes and the keys that enable them in older releases; the vectors of several modes are concatenated in this order."""

_SUPPORTED = ("Transformer", "Pooling", "Dense", "Normalize")


@dataclass(frozen=True)
class SentenceConfig:
    """How a sentence-transformers folder turns a text into a vector.

    `after` are the modules after the pooling, as type and folder. `prompt` is put before each text; `prompts` are the names of the
    folder's other prompts. `max_length` is in tokens.
    """

    pooling: tuple[str, ...] = ()
    after: tuple[tuple[str, Path], ...] = ()
    max_length: int | None = None
    lower: bool = False
    prompt: str = ""
    prompts: tuple[str, ...] = ()

    def read(self, text: str) -> str:
        """Return `text` as the input of the encoder."""
        return self.prompt + (text.lower() if self.lower else text)


def read_sentence_config(folder: Path) -> SentenceConfig:
    """Return the configuration in `folder`; an empty one if it is not a sentence-transformers folder.

    Raise BadModel if it has an unsupported module, or a file cannot be read.
    """
    if not (folder / LIST).exists():
        return SentenceConfig()
    parts = [(module, folder / path) for module, path in listed_modules(folder)]
    if unknown := [module for module, _ in parts if module not in _SUPPORTED]:
        raise BadModel(f"{folder / LIST} has {unknown[0]}; contrastive supports {', '.join(_SUPPORTED)}. Choose another base.model")
    if [module for module, _ in parts[:2]] != ["Transformer", "Pooling"]:
        raise BadModel(f"{folder / LIST} starts with {', '.join(module for module, _ in parts[:2])}; expected Transformer, Pooling")
    if not (parts[1][1] / "config.json").exists():
        raise BadModel(
            f"{folder / LIST} lists the pooling {parts[1][1].name}, but {parts[1][1] / 'config.json'} is missing; fetch the folder again"
        )
    pooling, reading, sentences = (
        pretrained.settings(path) for path in (parts[1][1] / "config.json", folder / TRANSFORMER, folder / SENTENCES)
    )
    prompts = {str(name): str(text) for name, text in (sentences.get("prompts") or {}).items() if text}
    default = sentences.get("default_prompt_name")
    if pooling.get("include_prompt") is False and prompts.get(str(default)):
        raise BadModel(
            f"{folder} excludes its prompt from the pooling (include_prompt), which contrastive does not support; choose another base.model"
        )
    return SentenceConfig(
        pooling=_pooling(pooling, folder),
        after=tuple(parts[2:]),
        max_length=reading.get("max_seq_length"),
        lower=bool(reading.get("do_lower_case")),
        prompt=prompts.get(str(default), ""),
        prompts=tuple(sorted(name for name in prompts if name != default)),
    )


def listed_modules(folder: Path) -> list[tuple[str, str]]:
    """Return type and folder name of each module that `modules.json` lists, in order; the folder name of the encoder is empty.

    Raise BadModel if the file cannot be read, or names a folder outside.
    """
    try:
        modules = json.loads((folder / LIST).read_text(encoding="utf-8"))
        parts = [(str(module["type"]).rpartition(".")[2], str(module.get("path") or "")) for module in modules]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadModel(f"{folder / LIST} cannot be read: {first_line(error)}") from None
    if outside := [path for _, path in parts if "/" in path.strip("/") or path.startswith((".", "/"))]:
        raise BadModel(f"{folder / LIST} names {outside[0]!r}; expected a folder next to it")
    return parts


def _pooling(settings: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    modes = settings.get("pooling_mode") or [name for name, key in POOLINGS.items() if settings.get(key)] or "mean"
    names = (modes,) if isinstance(modes, str) else tuple(map(str, modes))
    if unknown := [name for name in names if name not in POOLINGS]:
        raise BadModel(f"{folder} uses the pooling {unknown[0]!r}; expected {', '.join(POOLINGS)}")
    return names
