"""A model stored as an adapter: what was learnt, without the base; and the model again, merged from the two.

Writes the folder `adapter` beside a trained `model`; reads it, and the base, into a folder that is `model` again, byte for byte.
"""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from components.artifacts.adapter_manifest import AdapterManifest
from components.artifacts.manifest import BaseManifest, FilePart
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
"""Weights that neither the base nor peft's files have, as a fresh output layer that did not learn; mostly there are none."""

# The weights that a task draws are replaced, all of them. A seed that `train.seed` cannot be: what was drawn there is not drawn here.
_SEED = 2**40


def pinned(base: Path) -> BaseManifest:
    """Return what the folder `base` holds, each file held against its hash.

    Raises:
        NotThere: it has no manifest, or a file is not the one that this names.
    """
    manifest = BaseManifest.read(base)
    for part in manifest.parts:
        verify(base, part)
    return manifest


def write(learnt: lora.Learnt, model: Path, base: Path, out: Path) -> AdapterManifest:
    """Write into `out` all of the folder `model` but its weights, and in their place what was `learnt` from `base`.

    The model is made again from it, as one does who loads it; weights that this does not bring back are kept whole.

    Raises:
        NotThere: `base` is not a pinned base model.
        RetuneError: the model does not come back.
    """
    manifest = pinned(base)
    shutil.copytree(model, out, ignore=shutil.ignore_patterns("*.safetensors"))
    learnt.write(out, *(hub_id(manifest.source) or (None, None)))
    weights = digest_file(model / MERGED)
    with temporary() as made:
        found = _merge(out, base, manifest.parts, made) / MERGED
        if digest_file(found) != weights:
            _keep_rest(model / MERGED, found, out / REST)
            found = _merge(out, base, manifest.parts, made) / MERGED
            if digest_file(found) != weights:
                raise RetuneError(f"{out}: base and adapter do not give {model / MERGED} again; set train.lora_store: merged")
    record = AdapterManifest(source=manifest.source, base=manifest.parts, weights_sha256=weights, files=_hashes(out))
    record.write(out)
    sizes = [sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6 for folder in (out, model)]
    log.info("the adapter takes %.1f MB, the merged model %.1f MB; %s was made from it again", *sizes, MERGED)
    return record


@contextmanager
def merged(adapter: Path, find: Callable[[AdapterManifest], Path]) -> Iterator[Path]:
    """Give a folder with the whole model, in the temporary folder, removed at the end; `find` returns the base, whose hashes it checked.

    Another kind of processor may round otherwise where the two are merged: that is told as a warning.

    Raises:
        BadModel: the adapter is not what was written, or the base is not found, or changes meanwhile.
    """
    record = AdapterManifest.read(adapter)
    if changed := _changed(adapter, record):
        raise BadModel(f"{adapter} is not the adapter that was trained: {', '.join(changed)}")
    base = find(record)
    with temporary() as made:
        folder = _merge(adapter, base, record.base, made)
        found = digest_file(folder / MERGED)
        if found != record.weights_sha256:
            if fault := base_mismatch(base, record.base):
                raise BadModel(f"the base in {base} changed while it was read: {fault}")
            log.warning(
                "base and adapter are those of the training and give weights with other bits (sha256 %s…, in training %s…): this "
                "processor, or this version of torch or peft, rounds otherwise, and answers may differ in their last digits",
                *(found[:16], record.weights_sha256[:16]),
            )
        yield folder


def _hashes(adapter: Path) -> dict[str, str]:
    """Return the sha256 of every file but the record, by its path."""
    found = {path.relative_to(adapter).as_posix(): path for path in sorted(adapter.rglob("*")) if path.is_file()}
    return {name: digest_file(path) for name, path in found.items() if name != AdapterManifest.FILE}


def _changed(adapter: Path, record: AdapterManifest) -> list[str]:
    found = _hashes(adapter)
    return [
        f"{name} {'is missing' if name not in found else 'differs' if name in record.files else 'was added'}"
        for name in sorted(found.keys() | record.files.keys())
        if found.get(name) != record.files.get(name)
    ]


def _merge(adapter: Path, base: Path, parts: tuple[FilePart, ...], room: Path) -> Path:
    """Make the model in a folder of `room`, and return that; of the base nothing but its recorded `parts` is seen."""
    import torch

    for name in ("base", "model"):
        shutil.rmtree(room / name, ignore_errors=True)
        (room / name).mkdir()
    for part in parts:
        (room / "base" / part.name).parent.mkdir(exist_ok=True)
        (room / "base" / part.name).symlink_to((base / part.name).resolve())
    refuse_foreign_code(adapter)
    spec = ModelSpec.read(adapter)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = lora.restored(tasks.of(spec).build_model(room / "base", spec), adapter)
    model.save_pretrained(room / "model")
    _add_rest(room / "model" / MERGED, adapter / REST)
    beside = shutil.ignore_patterns(lora.CONFIG, "*.safetensors", AdapterManifest.FILE)
    shutil.copytree(adapter, room / "model", ignore=beside, dirs_exist_ok=True)
    return room / "model"


def _keep_rest(wanted: Path, found: Path, rest: Path) -> None:
    """Write the tensors of the file `wanted` that the file `found` lacks, or has otherwise, into the file `rest`."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(wanted, framework="pt") as whole, safe_open(found, framework="pt") as made:
        names, there = sorted(whole.keys()), set(made.keys())
        apart = [name for name in names if name not in there or not _same(whole.get_tensor(name), made.get_tensor(name))]
        tensors = {name: whole.get_tensor(name).clone() for name in apart}
    log.info("kept whole beside the adapter: %s", ", ".join(apart))
    save_file(tensors, rest, metadata={"format": "pt"})


def _same(one: "torch.Tensor", other: "torch.Tensor") -> bool:
    import torch

    return one.dtype == other.dtype and torch.equal(one, other)


def _add_rest(weights: Path, rest: Path) -> None:
    """Put the tensors of the file `rest`, where there is one, into the file `weights`."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    if not rest.exists():
        return
    with safe_open(weights, framework="pt") as made:
        metadata = made.metadata()
        tensors = {name: made.get_tensor(name).clone() for name in made.keys()}  # noqa: SIM118  it is no mapping
    weights.unlink()
    save_file(tensors | load_file(rest), weights, metadata=metadata)
