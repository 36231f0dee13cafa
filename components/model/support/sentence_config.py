"""What a sentence-transformers folder says of itself: how a text is read, how its tokens are pooled, and what follows the pooling.

`modules.json` lists the parts in their order. Its types are matched by name and never imported.
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
"""Ways of pooling, and the key by which older releases switch each on; vectors of several are put side by side in this order."""

_KNOWN = ("Transformer", "Pooling", "Dense", "Normalize")


@dataclass(frozen=True)
class Described:
    """How a sentence-transformers folder makes a vector of a text.

    `after` are the modules behind the pooling, each its type and its folder. `prompt` is put before each text, and `prompts` are
    others that the folder names. `max_length` is in tokens.
    """

    pooling: tuple[str, ...] = ("mean",)
    after: tuple[tuple[str, Path], ...] = ()
    max_length: int | None = None
    lower: bool = False
    prompt: str = ""
    prompts: tuple[str, ...] = ()

    def read(self, text: str) -> str:
        """Return `text` as the encoder is to read it."""
        return self.prompt + (text.lower() if self.lower else text)


def read_description(folder: Path) -> Described | None:
    """Return what `folder` says of itself; None where it is no sentence-transformers folder.

    Raises:
        BadModel: it has a module that is not built here, or a file that cannot be read.
    """
    if not (folder / LIST).exists():
        return None
    parts = [(kind, folder / path) for kind, path in listed_modules(folder)]
    if unknown := [kind for kind, _ in parts if kind not in _KNOWN]:
        raise BadModel(f"{folder / LIST} has {unknown[0]}; contrastive builds {', '.join(_KNOWN)}. Choose another base.model")
    if [kind for kind, _ in parts[:2]] != ["Transformer", "Pooling"]:
        raise BadModel(f"{folder / LIST} begins with {', '.join(kind for kind, _ in parts[:2])}; expected Transformer, Pooling")
    if not (parts[1][1] / "config.json").exists():
        raise BadModel(
            f"{folder / LIST} lists the pooling {parts[1][1].name}, and there is no {parts[1][1] / 'config.json'}; get the folder anew"
        )
    pooling, reading, sentences = (
        pretrained.settings(path) for path in (parts[1][1] / "config.json", folder / TRANSFORMER, folder / SENTENCES)
    )
    prompts = {str(name): str(text) for name, text in (sentences.get("prompts") or {}).items() if text}
    default = sentences.get("default_prompt_name")
    if pooling.get("include_prompt") is False and prompts.get(str(default)):
        raise BadModel(
            f"{folder} leaves its prompt out of the pooling (include_prompt), which contrastive does not; choose another base.model"
        )
    return Described(
        pooling=_pooling(pooling, folder),
        after=tuple(parts[2:]),
        max_length=reading.get("max_seq_length"),
        lower=bool(reading.get("do_lower_case")),
        prompt=prompts.get(str(default), ""),
        prompts=tuple(sorted(name for name in prompts if name != default)),
    )


def listed_modules(folder: Path) -> list[tuple[str, str]]:
    """Return type and folder name of each module that `modules.json` lists, in order; the folder name of the encoder is empty.

    Raises:
        BadModel: the file cannot be read, or names a folder elsewhere.
    """
    try:
        found = json.loads((folder / LIST).read_text(encoding="utf-8"))
        parts = [(str(each["type"]).rpartition(".")[2], str(each.get("path") or "")) for each in found]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadModel(f"{folder / LIST} cannot be read: {first_line(error)}") from None
    if outside := [path for _, path in parts if "/" in path.strip("/") or path.startswith((".", "/"))]:
        raise BadModel(f"{folder / LIST} names {outside[0]!r}: expected a folder beside it")
    return parts


def _pooling(settings: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    chosen = settings.get("pooling_mode") or [name for name, key in POOLINGS.items() if settings.get(key)] or "mean"
    names = (chosen,) if isinstance(chosen, str) else tuple(map(str, chosen))
    if unknown := [name for name in names if name not in POOLINGS]:
        raise BadModel(f"{folder} pools by {unknown[0]!r}; expected {', '.join(POOLINGS)}")
    return names
