"""A model stored as an adapter, that is the learned weights without the base, and its merge with the base.

Writes the folder `adapter` next to a trained `model`; merges it with the base into a folder that equals `model` byte for byte.
"""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts.manifest import AdapterManifest, BaseManifest, FilePart
from components.artifacts.rows import verify
from components.artifacts.training import ModelSpec
from components.core.errors import BadModel, RetuneError
from components.core.hashing import digest_file
from components.core.temporary import temporary
from components.model import tasks
from components.model.base_resolver import base_mismatch, hub_id
from components.model.methods import lora
from components.model.support.foreign_code import refuse_foreign_code

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

MERGED = "model.safetensors"
REST = "rest.safetensors"
"""Weights that neither the base nor peft's files contain, such as a new output layer that did not learn; rarely needed."""

# All weights that a task draws are replaced. `train.seed` is below 2**32, so this seed never repeats the draws of a training.
_SEED = 2**40


def verified_manifest(base: Path) -> BaseManifest:
    """Return the manifest of the folder `base` after checking each file against its hash.

    Raise NotFound if the manifest is missing, or a file is missing or differs.
    """
    manifest = BaseManifest.read(base)
    for part in manifest.parts:
        verify(base, part)
    return manifest


def write(adapter_weights: lora.AdapterWeights, model: Path, base: Path, out: Path) -> AdapterManifest:
    """Write the files of the folder `model` into `out`, with the adapter instead of the weights.

    The model is then merged again, as on loading; weights that the merge does not reproduce are stored in full.
    Raise NotFound if `base` is not a pinned base model, RetuneError if the merge does not reproduce the model.
    """
    manifest = verified_manifest(base)
    shutil.copytree(model, out, ignore=shutil.ignore_patterns("*.safetensors"))
    adapter_weights.write(out, *(hub_id(manifest.source) or (None, None)))
    weights = digest_file(model / MERGED)
    with temporary() as folder:
        merged_file = _merge(out, base, manifest.parts, folder) / MERGED
        if digest_file(merged_file) != weights:
            _store_rest(model / MERGED, merged_file, out / REST)
            merged_file = _merge(out, base, manifest.parts, folder) / MERGED
            if digest_file(merged_file) != weights:
                raise RetuneError(f"{out}: merging base and adapter does not reproduce {model / MERGED}; set train.lora_store: merged")
    record = AdapterManifest(source=manifest.source, base=manifest.parts, weights_sha256=weights, files=_hashes(out))
    record.write(out)
    sizes = [sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6 for folder in (out, model)]
    log.info("the adapter takes %.1f MB, the merged model %.1f MB; %s was reproduced from it", *sizes, MERGED)
    return record


@contextmanager
def merged(adapter: Path, find: Callable[[AdapterManifest], Path]) -> Iterator[Path]:
    """Yield a temporary folder with the merged model; `find` returns the base after checking its hashes.

    A different processor may round differently in the merge; that is logged as a warning.
    Raise BadModel if the adapter was changed, or the base is not found or changes during the merge.
    """
    record = AdapterManifest.read(adapter)
    if changed := _changed(adapter, record):
        raise BadModel(f"{adapter} is not the adapter that was trained: {', '.join(changed)}")
    base = find(record)
    with temporary() as parent:
        folder = _merge(adapter, base, record.base, parent)
        digest = digest_file(folder / MERGED)
        if digest != record.weights_sha256:
            if fault := base_mismatch(base, record.base):
                raise BadModel(f"the base in {base} changed while it was read: {fault}")
            log.warning(
                "merged weights differ in the last bits from training (sha256 %s…, in training %s…): this processor, or this version of "
                "torch or peft, rounds differently; predictions may differ slightly",
                *(digest[:16], record.weights_sha256[:16]),
            )
        yield folder


def _hashes(adapter: Path) -> dict[str, str]:
    """Return the sha256 of every file except the record, by its path."""
    files = {path.relative_to(adapter).as_posix(): path for path in sorted(adapter.rglob("*")) if path.is_file()}
    return {name: digest_file(path) for name, path in files.items() if name != AdapterManifest.FILE}


def _changed(adapter: Path, record: AdapterManifest) -> list[str]:
    hashes = _hashes(adapter)
    return [
        f"{name} {'is missing' if name not in hashes else 'differs' if name in record.files else 'was added'}"
        for name in sorted(hashes.keys() | record.files.keys())
        if hashes.get(name) != record.files.get(name)
    ]


def _merge(adapter: Path, base: Path, parts: tuple[FilePart, ...], parent: Path) -> Path:
    """Merge the model into a folder below `parent` and return it; only the recorded `parts` of the base are visible to it."""
    import torch

    for name in ("base", "model"):
        shutil.rmtree(parent / name, ignore_errors=True)
        (parent / name).mkdir()
    for part in parts:
        (parent / "base" / part.name).parent.mkdir(exist_ok=True)
        (parent / "base" / part.name).symlink_to((base / part.name).resolve())
    refuse_foreign_code(adapter)
    spec = ModelSpec.read(adapter)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = lora.restore(tasks.of(spec).build_model(parent / "base", spec), adapter)
    model.save_pretrained(parent / "model")
    _add_rest(parent / "model" / MERGED, adapter / REST)
    excluded = shutil.ignore_patterns(lora.CONFIG, "*.safetensors", AdapterManifest.FILE)
    shutil.copytree(adapter, parent / "model", ignore=excluded, dirs_exist_ok=True)
    return parent / "model"


def _store_rest(expected: Path, actual: Path, rest: Path) -> None:
    """Write the tensors of the file `expected` that are missing or different in the file `actual` into the file `rest`."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(expected, framework="pt") as trained, safe_open(actual, framework="pt") as merged:
        present = set(merged.keys())
        names = [n for n in sorted(trained.keys()) if n not in present or not _equal(trained.get_tensor(n), merged.get_tensor(n))]
        tensors = {name: trained.get_tensor(name).clone() for name in names}
    log.info("stored in full next to the adapter: %s", ", ".join(names))
    save_file(tensors, rest, metadata={"format": "pt"})


def _equal(a: "torch.Tensor", b: "torch.Tensor") -> bool:
    import torch

    return a.dtype == b.dtype and torch.equal(a, b)


def _add_rest(weights: Path, rest: Path) -> None:
    """Put the tensors of the file `rest`, if it exists, into the file `weights`."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    if not rest.exists():
        return
    with safe_open(weights, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  not a mapping
    weights.unlink()
    save_file(tensors | load_file(rest), weights, metadata=metadata)
