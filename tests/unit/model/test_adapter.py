"""A LoRA model stored as an adapter: merged bit for bit with its own base, and refused with any other."""

import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from components.artifacts.manifest import AdapterManifest, BaseManifest, FilePart
from components.artifacts.training import ModelSpec
from components.artifacts.tuning_result import TunedSettings
from components.core.errors import BadModel, BadParams, NotFound
from components.core.hashing import digest_file, digest_folder, digest_value
from components.core.section import OpenSection
from components.model import adapter, tasks
from components.model.base_resolver import find_base, hub_id
from components.model.methods import lora
from components.training.train import train
from components.training.trainer import TrainSection
from components.training.trainer.identity import training_identity
from components.training.tune.settings import TuneParams, searched
from tests.support.encoders import make_encoder
from tests.support.learn import make_learn
from tests.support.tiers import rest_exhaustive
from tests.support.tiny_generators import make_gpt2, make_llama

ADAPTER = {"method": "lora", "lora_store": "adapter"}
QUICK = {"epochs": 1, "learning_rate": 1e-2, "batch_size": 16, "threads": 1, "precision": "float32"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def pinned(folder: Path, source: str = "test") -> Path:
    """Write the manifest of a pinned base."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != BaseManifest.FILE)
    parts = tuple(FilePart(name=path.name, sha256=digest_file(path), bytes=path.stat().st_size) for path in files)
    BaseManifest(source=source, parts=parts, digest=digest_value(source), taken_at="2026-11-21T00:00:00+00:00").write(folder)
    return folder


def trained(folder: Path, base: Path, rows: pd.DataFrame, task: str = "text_classification", **changes: Any) -> Path:
    """Train `task` on `rows`, with optional `task_options`, and return models/trained."""
    options = changes.pop("task_options", {})
    learn = make_learn(folder / "learn", base, rows, name=task, options=options)
    TunedSettings(settings={}).write(folder)
    section = TrainSection.parse({**QUICK, "metric": tasks.load(task, options).validation_metrics[0]} | ADAPTER | changes, "train")
    train(learn, base, folder, folder / "trained", task=task, train=section, task_options=OpenSection.parse(options, "task_options"))
    return folder / "trained"


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RETUNE_BASE", "RETUNE_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Path:
    """A classifier of tickets, trained with adapters and a temperature: models/trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("state"))
        return trained(tmp_path_factory.mktemp("classifier"), tiny_base, tickets, calibration="temperature")


def encoder(folder: Path, _texts: list[str], tiny_base: Path) -> Path:
    return shutil.copytree(tiny_base, folder, dirs_exist_ok=True)


def headless(folder: Path, texts: list[str], _tiny_base: Path) -> Path:
    """An encoder with an untied output layer: it is drawn at random and does not learn, because LoRA does not treat it as a head."""
    config = json.loads((make_encoder(folder, "distilbert", texts) / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    return folder


Make = Callable[[Path, list[str], Path], Path]
# By name: the function that makes the base, the task, the settings, and whether weights are stored in full next to the adapter.
CASES: dict[str, tuple[Make, str, dict[str, Any], bool]] = {
    "classifier": (encoder, "text_classification", {}, False),
    "DoRA, and a head of our own": (
        encoder,
        "text_classification",
        {"lora_dora": True, "lora_targets": "all-linear", "task_options": {"pooling": "mean", "head_hidden": 8}},
        False,
    ),
    "tied, weights transposed": (lambda folder, texts, _: make_gpt2(folder, texts), "causal_lm", {"ema": 0.5}, False),
    "tied, DoRA": (lambda folder, texts, _: make_llama(folder, texts, tied=True), "causal_lm", {"lora_dora": True}, False),
    "an output layer that was drawn": (headless, "masked_lm", {}, True),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", rest_exhaustive(CASES, *list(CASES)[:2]))
def test_base_and_adapter_merge_to_the_exact_model(case: str, tiny_base: Path, tickets: pd.DataFrame, workspace: Path) -> None:
    make, task, changes, rest = CASES[case]
    (workspace / "base").mkdir()
    base = pinned(make(workspace / "base", list(tickets["text"]), tiny_base))
    if task == "causal_lm":
        changes = {"task_options": {"max_new_tokens": 4}, **changes}
    adapted = trained(workspace / "adapted", base, tickets, task, **changes)
    plain = trained(workspace / "plain", base, tickets, task, **changes, lora_store="merged")

    assert digest_folder(adapted / "model") == digest_folder(plain / "model")  # the training is the same
    assert not (plain / "adapter").exists()
    before = torch.random.get_rng_state()
    with adapter.merged(adapted / "adapter", lambda record: base) as folder:
        assert torch.equal(torch.random.get_rng_state(), before)
        assert digest_folder(folder) == digest_folder(adapted / "model")
        assert AdapterManifest.read(adapted / "adapter").weights_sha256 == digest_file(folder / "model.safetensors")
        merged, direct = (
            tasks.of(ModelSpec.read(model)).predictor(model).answer(tickets[["id", "group", "text"]].head(4))
            for model in (folder, adapted / "model")
        )
    assert not folder.exists()
    assert merged.predicted == direct.predicted
    assert np.array_equal(merged.probabilities, direct.probabilities)
    assert (adapted / "adapter/rest.safetensors").exists() is rest
    if not rest:
        assert (adapted / "adapter/adapter_model.safetensors").stat().st_size < 0.5 * (adapted / "model/model.safetensors").stat().st_size


@pytest.mark.slow
def test_adapter_folder_has_the_files_of_the_model(out: Path) -> None:
    files = [{path.name for path in (out / name).iterdir()} for name in ("model", "adapter")]

    assert files[1] == files[0] - {"model.safetensors"} | {"adapter.json", "adapter_config.json", "adapter_model.safetensors"}
    assert all((out / "adapter" / name).read_bytes() == (out / "model" / name).read_bytes() for name in files[0] & files[1])
    assert ModelSpec.read(out / "adapter").temperature == ModelSpec.read(out / "model").temperature != 1  # set after the training
    heads = [name for name in safetensors.torch.load_file(out / "adapter/adapter_model.safetensors") if "lora_" not in name]
    assert [name.removeprefix("base_model.model.") for name in heads] == ["bert.pooler.dense.bias", "bert.pooler.dense.weight", *CLASSIFIER]


CLASSIFIER = ["classifier.bias", "classifier.weight"]


@pytest.mark.slow
def test_adapter_does_not_depend_on_the_folder(out: Path, tiny_base: Path, tickets: pd.DataFrame, workspace: Path) -> None:
    elsewhere = shutil.copytree(tiny_base, workspace / "elsewhere/base")
    again = trained(workspace / "again", elsewhere, tickets, calibration="temperature") / "adapter"

    assert digest_folder(again) == digest_folder(out / "adapter")
    for path in again.iterdir():
        assert str(workspace).encode() not in path.read_bytes(), path.name
        assert str(tiny_base).encode() not in path.read_bytes(), path.name
    config = json.loads((again / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (None, None)
    assert config["target_modules"] == sorted(config["target_modules"])


def test_peft_alone_can_read_the_adapter(out: Path, tiny_base: Path, workspace: Path) -> None:
    from peft import PeftModel

    lora.AdapterWeights({"peft_type": "LORA"}, {"a": torch.ones(2)}).write(workspace, *(hub_id(f"org/name@{COMMIT}") or (None, None)))
    config = json.loads((workspace / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("org/name", COMMIT)
    for source in ("package:org/name", "models:/org/1", "../org/name@x", "/srv/base", "org/name"):
        assert hub_id(source) is None

    spec = ModelSpec.read(out / "adapter")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        model = PeftModel.from_pretrained(tasks.of(spec).build_model(tiny_base, spec), str(out / "adapter")).merge_and_unload()
    merged = tasks.of(spec).build_model(out / "model", spec)
    assert all(torch.equal(weights, merged.state_dict()[name]) for name, weights in model.state_dict().items())


@pytest.mark.slow
def test_resumed_training_writes_the_same_adapter(
    out: Path, tiny_base: Path, tickets: pd.DataFrame, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(adapter, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(workspace / "again", tiny_base, tickets, calibration="temperature")
    shutil.rmtree(workspace / "again/learn")
    again = trained(workspace / "again", tiny_base, tickets, calibration="temperature")

    assert json.loads((again / "training.json").read_text())["resumed"] > 0
    assert digest_folder(again / "adapter") == digest_folder(out / "adapter")


def found_in(record: AdapterManifest, uri: str = "", registered: Callable[[str], Path] | None = None) -> Path:
    def nothing(model: str) -> Path:
        raise NotFound(f"no registry has {model}")

    return find_base(record, registered or nothing, uri)


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_different_base_is_refused_before_loading(out: Path, tiny_base: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "of", None)  # loading would raise a different error
    base = shutil.copytree(tiny_base, workspace / "base")
    flip(base / "model.safetensors")
    monkeypatch.setenv("RETUNE_BASE", str(base))
    expected, actual = digest_file(tiny_base / "model.safetensors")[:16], digest_file(base / "model.safetensors")[:16]
    wrong = rf"RETUNE_BASE .*/base: model.safetensors differs, expected sha256 {expected}… \([\d,]+ bytes\), found {actual}…"
    with pytest.raises(BadModel, match=wrong) as error, adapter.merged(out / "adapter", found_in):
        pass
    assert "\n" not in str(error.value)
    assert "Put the base that it was trained on into a folder and set the environment variable RETUNE_BASE to it" in str(error.value)

    (base / "model.safetensors").unlink()
    with pytest.raises(BadModel, match=r"/base: model.safetensors is missing"):
        found_in(AdapterManifest.read(out / "adapter"))
    monkeypatch.setenv("RETUNE_BASE", f"{workspace / 'nowhere'}{os.pathsep}{tiny_base}")
    assert found_in(AdapterManifest.read(out / "adapter")) == tiny_base
    monkeypatch.setenv("RETUNE_BASE", str(workspace / "nowhere"))
    with pytest.raises(BadModel, match="nowhere: the folder does not exist"):
        found_in(AdapterManifest.read(out / "adapter"))


def test_changing_base_is_refused_and_rounding_is_logged(
    out: Path, tiny_base: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    base = shutil.copytree(tiny_base, workspace / "base")
    flip(base / "model.safetensors")
    with (
        pytest.raises(BadModel, match=r"changed while it was read: model.safetensors differs"),
        adapter.merged(out / "adapter", lambda _: base),
    ):
        pass
    restore = lora.restore

    def rounded(model: Any, folder: Path) -> Any:
        merged = restore(model, folder)
        with torch.no_grad():
            merged.classifier.bias.mul_(1 + 1e-6)
        return merged

    monkeypatch.setattr(lora, "restore", rounded)
    with adapter.merged(out / "adapter", lambda _: tiny_base) as folder:
        assert folder.is_dir()
    assert "rounds differently" in caplog.text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: flip(folder / "adapter_model.safetensors"), "adapter_model.safetensors differs"),
        (lambda folder: (folder / "retune.json").unlink(), "retune.json is missing"),
        (lambda folder: (folder / "rest.safetensors").write_bytes(b"x"), "rest.safetensors was added"),
    ],
)
def test_changed_adapter_is_refused(out: Path, tiny_base: Path, workspace: Path, damage: Any, message: str) -> None:
    folder = shutil.copytree(out / "adapter", workspace / "adapter")
    damage(folder)
    with pytest.raises(BadModel, match=f"is not the adapter that was trained: {message}"), adapter.merged(folder, lambda _: tiny_base):
        pass


def test_extra_files_of_the_base_are_ignored(out: Path, tiny_base: Path, workspace: Path) -> None:
    base = shutil.copytree(tiny_base, workspace / "base")
    shutil.copyfile(out / "adapter/adapter_config.json", base / "adapter_config.json")  # transformers would load it by itself
    with adapter.merged(out / "adapter", lambda _: base) as folder:
        assert digest_folder(folder) == digest_folder(out / "model")


def test_base_is_found_at_its_source(out: Path, tiny_base: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = AdapterManifest.read(out / "adapter")

    def source(text: str) -> AdapterManifest:
        return record.model_copy(update={"source": text})

    assert found_in(source(str(tiny_base))) == tiny_base
    package = shutil.copytree(tiny_base, workspace / "site/a_package/model").parent
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(workspace / "site")
    assert found_in(source("package:a_package/model")) == package / "model"
    assert found_in(source("models:/tickets/3"), registered=lambda model: {"models:/tickets/3": tiny_base}[model]) == tiny_base
    project = workspace / "project"
    shutil.copytree(tiny_base, project / "models/own")
    assert found_in(source("models/own"), uri=f"sqlite:///{project}/var/mlflow.db") == project / "models/own"


def test_base_is_found_in_the_hub_cache(out: Path, tiny_base: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(workspace / "hub"))
    record = AdapterManifest.read(out / "adapter").model_copy(update={"source": f"org/name@{COMMIT}"})
    with pytest.raises(BadModel, match=f"the hub's cache, org/name@{COMMIT}: not cached, and loading a version downloads nothing"):
        found_in(record)
    snapshot = workspace / f"hub/models--org--name/snapshots/{COMMIT}"
    shutil.copytree(tiny_base, snapshot)
    assert found_in(record) == snapshot


def test_pinned_base_replaces_a_missing_source(out: Path, tiny_base: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = AdapterManifest.read(out / "adapter").model_copy(update={"source": "models:/tickets/3"})
    project = workspace / "project"
    uri = f"sqlite:///{project}/var/mlflow.db"
    with pytest.raises(BadModel, match=r"is models:/tickets/3; searched models:/tickets/3: no registry has models:/tickets/3\. Put"):
        found_in(record, uri)
    changed = shutil.copytree(tiny_base, project / "data/base")
    (changed / "config.json").write_text("{}")
    with pytest.raises(BadModel, match=r"the pinned base .*/project/data/base: config.json differs"):
        found_in(record, uri)
    right = shutil.copytree(tiny_base, project / "var/workspaces/own-1/data/base")
    assert found_in(record, uri) == right
    (project / "dvc.yaml").touch()
    (project / "deep").mkdir()
    monkeypatch.setenv("RETUNE_PROJECT", str(project / "deep"))
    assert found_in(record) == right


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_store": "adapter"}, "train.lora_store: is used only if method is lora, found 'adapter' with method full"),
        ({"method": "freeze", "lora_store": "adapter"}, "train.lora_store: is used only if method is lora"),
        ({"method": "lora", "lora_store": "peft"}, "train.lora_store"),
    ],
)
def test_lora_store_without_lora_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadParams, match=message):
        TrainSection.parse(settings, "train")


def test_lora_store_cannot_be_searched(out: Path) -> None:
    section = TrainSection.parse({"method": "tuned", "lora_store": "adapter"}, "train")
    assert [section.settings({"method": name}).stores_adapter for name in ("full", "freeze", "lora")] == [False, False, True]
    with pytest.raises(BadParams, match=r"train.lora_store is set to `tuned`, .* it cannot be searched"):
        searched({}, TrainSection.parse({"method": "lora", "lora_store": "tuned"}, "train"))
    with pytest.raises(BadParams, match=r"space.lora_store cannot be searched"):
        TuneParams.parse({"space": {"lora_store": {"type": "categorical", "choices": ["merged", "adapter"]}}}, "tune")
    spec = ModelSpec.read(out.parent / "learn")
    both = [TrainSection.parse(QUICK | ADAPTER | {"lora_store": store}, "train").settings({}) for store in ("merged", "adapter")]
    assert training_identity("inputs", spec, both[0]) == training_identity("inputs", spec, both[1])


def test_unverified_base_is_refused_before_training(tiny_base: Path, tickets: pd.DataFrame, workspace: Path) -> None:
    base = shutil.copytree(tiny_base, workspace / "base")
    flip(base / "model.safetensors")
    with pytest.raises(NotFound, match=r"model.safetensors"):
        trained(workspace / "one", base, tickets)
    (base / "manifest.json").unlink()
    with pytest.raises(NotFound, match=r"manifest.json is missing"):
        trained(workspace / "two", base, tickets)
    assert not (workspace / "var").exists()
