"""Refuses model folders whose settings name remote code or a kernel from the hub."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.core.errors import BadModel

SETTINGS = ("*config*.json", "modules.json", "*/config.json")
"""The files of a model folder that transformers, peft or sentence-transformers read settings from."""

_CODE = ("auto_map", "custom_pipelines", "trust_remote_code")
_CHOICES = ("attn_implementation", "experts_implementation", "kernel")
_INERT = ("_attn_implementation_autoset",)  # a flag written by transformers 4.46 to 4.50


def refuse_foreign_code(folder: Path) -> None:
    """Raise BadModel, with file and key, if the settings of a model folder name code or a kernel at any depth."""
    for pattern in SETTINGS:
        for path in sorted(folder.glob(pattern)):
            if fault := fault_of(path):
                raise BadModel(f"{folder} {fault}, which Retune never runs; remove the key or choose another base.model")


def fault_of(path: Path) -> str | None:
    """Return which key of a settings file names code or a kernel; None if no key does or the file is not JSON."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # the reader of the file reports the error
    for key, value in _entries(settings):
        name = key.rpartition(".")[2]
        if name in _CODE and value is not None and value is not False:
            return f"contains custom code ({path.name}: {key})"
        if name in _INERT or not any(choice in name for choice in _CHOICES):
            continue
        if name.startswith("_") and value is not None:
            return f"sets a private attention field ({path.name}: {key})"
        if kernels := [text for text in _texts(value) if "/" in text]:
            return f"names a kernel to load ({path.name}: {key}: {kernels[0][:60]!r})"
    return None


def _entries(settings: Any) -> Iterator[tuple[str, Any]]:
    """Yield the path of each key in nested objects, and its value."""
    pending: list[tuple[str, Any]] = [("", settings)]
    while pending:
        above, value = pending.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                yield f"{above}{key}", inner
                pending.append((f"{above}{key}.", inner))
        elif isinstance(value, list):
            pending += [(above, inner) for inner in value]


def _texts(value: Any) -> list[str]:
    """Return the texts in a nested value."""
    if isinstance(value, str):
        return [value]
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for inner in below for text in _texts(inner)]
