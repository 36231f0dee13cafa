"""What a model folder may not ask for: code of its own, or a kernel from the hub, anywhere in its settings."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.core.errors import BadModel

SETTINGS = ("*config*.json", "modules.json", "*/config.json")
"""The files of a model folder that transformers, peft or sentence-transformers read settings from."""

_CODE = ("auto_map", "custom_pipelines", "trust_remote_code")
_CHOICES = ("attn_implementation", "experts_implementation", "kernel")
_INERT = ("_attn_implementation_autoset",)  # a flag that transformers 4.46 to 4.50 wrote


def refuse_foreign_code(folder: Path) -> None:
    """Refuse a model folder whose settings name code or a kernel, at any depth; BadModel with file and key."""
    for pattern in SETTINGS:
        for path in sorted(folder.glob(pattern)):
            if fault := fault_of(path):
                raise BadModel(f"{folder} {fault}, which Retune never runs; remove the key or choose another base.model")


def fault_of(path: Path) -> str | None:
    """Say which key of a file of settings names code or a kernel; None where none does, or the file is no JSON."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # who reads it says what is wrong with it
    for key, value in _entries(settings):
        name = key.rpartition(".")[2]
        if name in _CODE and value is not None and value is not False:
            return f"brings code of its own ({path.name}: {key})"
        if name in _INERT or not any(choice in name for choice in _CHOICES):
            continue
        if name.startswith("_") and value is not None:
            return f"sets a private attention field ({path.name}: {key})"
        if kernels := [text for text in _texts(value) if "/" in text]:
            return f"names a kernel to load ({path.name}: {key}: {kernels[0][:60]!r})"
    return None


def _entries(settings: Any) -> Iterator[tuple[str, Any]]:
    """Yield each key of nested objects, with the path to it, and its value."""
    left: list[tuple[str, Any]] = [("", settings)]
    while left:
        above, value = left.pop()
        if isinstance(value, dict):
            for key, each in value.items():
                yield f"{above}{key}", each
                left.append((f"{above}{key}.", each))
        elif isinstance(value, list):
            left += [(above, each) for each in value]


def _texts(value: Any) -> list[str]:
    """Return the texts within a value."""
    if isinstance(value, str):
        return [value]
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for each in below for text in _texts(each)]
