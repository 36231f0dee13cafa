"""A LoRA model stored as an adapter: made whole again bit for bit from the right base, and refused over any other."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import safetensors.torch
import torch

from components import adapter, tasks
from components.artifacts.adapted import Adapted
from components.artifacts.manifest import BaseManifest, Part
from components.artifacts.training import ModelSpec
from components.artifacts.trial import Chosen
from components.errors import BadModel, BadParams, NotThere
from components.identity import digest_file, digest_folder, digest_value
from components.learning import TrainParams, TrainSection
from components.methods import lora
from components.origin import find_base, hub_id
from components.train import train
from components.tune.params import TuneParams, searched
from tests.learn import make_learn
from tests.tiny_generators import make_gpt2, make_llama

ADAPTER = {
    "method": "lora",
    "lora_registered": "adapter",
    "epochs": 1,
    "learning_rate": 1e-2,
    "batch_size": 16,
    "threads": 1,
    "precision": "float32",
    "metric": "macro_f1",
}


def pin(folder: Path, source: str = "test") -> Path:
    """Write the manifest of a base, as `pin_base` does."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != BaseManifest.FILE)
    parts = tuple(Part(name=path.name, sha256=digest_file(path), bytes=path.stat().st_size) for path in files)
    BaseManifest(source=source, parts=parts, digest=digest_value(source), taken_at="2026-11-21T00:00:00+00:00").write(folder)
    return folder


def trained(folder: Path, base: Path, rows: pd.DataFrame, task: str = "text_classification", options: dict | None = None, **changes: Any) -> Path:
    """Train on `rows` and return models/trained."""
    learn = make_learn(folder / "learn", base, rows, name=task, options=options)
    Chosen(settings={}).write(folder)
    metric = tasks.load(task, options).metrics[0]
    section = TrainSection.parse(ADAPTER | {"metric": metric} | changes, "train")
    train(learn, base, folder, folder / "trained", task=task, train=section, **({} if options is None else {"task_options": free(options)}))
    return folder / "trained"


def free(options: dict[str, Any]) -> Any:
    from components.params import Free

    return Free.parse(options, "task_options")


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


BASES: dict[str, Callable[[Path, list[str]], Path]] = {
    "gpt2": make_gpt2,
    "tied llama": lambda folder, texts: make_llama(folder, texts, tied=True),
    "llama": make_llama,
}


@pytest.mark.parametrize(("family", "dora"), [("gpt2", False), ("tied llama", True), ("llama", False)])
def test_x(family, dora, tickets, workspace):
    (workspace / "base").mkdir()
    base = pin(BASES[family](workspace / "base", list(tickets["text"])))
    out = trained(workspace / "one", base, tickets, "causal_lm", {"max_new_tokens": 4}, lora_dora=dora)
    print(sorted((p.name, p.stat().st_size) for p in (out / "adapter").iterdir()), sorted((p.name, p.stat().st_size) for p in (out / "model").iterdir()))
    print((out / "adapter/adapter_config.json").read_text())
    with adapter.merged(out / "adapter", lambda record: base) as folder:
        assert digest_folder(folder) == digest_folder(out / "model")


def test_y(tiny_base, tickets, workspace):
    out = trained(workspace / "one", tiny_base, tickets)
    print(sorted((p.name, p.stat().st_size) for p in (out / "adapter").iterdir()), sorted((p.name, p.stat().st_size) for p in (out / "model").iterdir()))
    with adapter.merged(out / "adapter", lambda record: tiny_base) as folder:
        assert digest_folder(folder) == digest_folder(out / "model")
