"""Frozen features: the inputs of a model's output layer in evaluation mode, cached on disk.

A linear model on these vectors is exactly an output layer of the model, for every architecture, pooling and hidden layer of the head.
"""

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.artifacts.training import ModelSpec
from components.core.errors import BadModel
from components.core.hashing import digest_file, digest_value
from components.model.support.feature_cache import FeatureCache
from components.model.support.output_heads import output_layer

log = logging.getLogger(__name__)

IGNORED = -100
"""The label of tokens that no answer is predicted for."""

_SHARED_MIB = 512  # of the hidden states of a batch, or of the features, up to which one pass gives those of all poolings
_BATCH = 32  # rows; part of the key, because it changes the last digits
_CODE = Path(__file__).parents[1]
_LABELS = ("id2label", "label2id", "num_labels", "problem_type", "_name_or_path", "transformers_version", "architectures")


class Builder(Protocol):
    """What a task provides to compute features."""

    def load_tokenizer(self, base: Path) -> Any:
        """Load the tokenizer of a model folder."""

    def build_model(self, base: Path, spec: ModelSpec) -> Any:
        """Load the base model with a new head."""

    def collator(self, tokenizer: Any, spec: ModelSpec) -> Any:
        """Return the collator of encoded rows."""


@dataclass(frozen=True)
class FrozenFeatures:
    """`vectors` (n, width) in float32 with `targets` (n,) or (n, outputs): one per row, or one per labelled token.

    `rows` (n,) is the row of each vector in the encoded table, and `groups` (n,) its group: vectors of a group belong into one fold.
    `bias` is whether the output layer adds a bias.
    """

    vectors: npt.NDArray[np.float32]
    targets: npt.NDArray[Any]
    rows: npt.NDArray[np.int64]
    groups: npt.NDArray[Any]
    bias: bool = True

    def take(self, kept: npt.NDArray[Any]) -> Self:
        """Return the vectors at `kept`, a mask or indices."""
        parts = {name: getattr(self, name)[kept] for name in ("vectors", "targets", "rows", "groups")}
        return replace(self, **parts)


def frozen_features(
    task: Builder, base: Path, spec: ModelSpec, table: pa.Table, *, seed: int, precision: str = "float32", cache: FeatureCache | None = None
) -> FrozenFeatures:
    """Return the features of the encoded rows `table` from the model that `task` builds of the folder `base` with `seed`.

    Raises:
        BadModel: the model cannot be loaded, or a feature is NaN or infinite.
    """
    import torch

    torch.manual_seed(seed)
    return features_of(task.build_model(base, spec), task, base, spec, table, precision=precision, cache=cache)


def features_of(
    model: Any,
    task: Builder,
    base: Path,
    spec: ModelSpec,
    table: pa.Table,
    *,
    precision: str = "float32",
    cache: FeatureCache | None = None,
    most_mib: float = math.inf,
) -> FrozenFeatures:
    """Return the features of the encoded rows `table` from `model`, which `task` built of `base`; it stays in evaluation mode.

    The same rows in another order give the same bits, with and without `cache`; labels do not matter. `precision` is float32 or bfloat16.
    The features with the poolings mean and last_four, which the same pass through the encoder gives, are put into `cache` too.
    If the features need more than `most_mib` MiB, the rows are sampled; the sample does not depend on their order either.

    Raises:
        BadModel: a feature is NaN or infinite.
    """
    inputs, targets, kept = _read(table)
    layer = output_layer(model, int(model.config.num_labels))[1]
    names = [_row_name(row, marks) for row, marks in zip(inputs, kept, strict=True)]
    first = _sample({name: index for index, name in reversed(list(enumerate(names)))}, kept, most_mib * 2**20 / (4 * layer.in_features))
    distinct = sorted(first.values(), key=lambda index: (len(inputs[index]["input_ids"]), names[index]))
    longest = max((len(row["input_ids"]) for row in inputs), default=0)
    poolings = _poolings(model, layer, len(distinct), longest) if cache and cache.limit_mib else ()
    keys = _keys(model, layer, spec, [names[index] for index in distinct], precision, poolings)
    stored = cache.get(keys[0]) if cache else None
    if stored is None:
        collate = task.collator(task.load_tokenizer(base), spec)
        ordered, marks_of = [inputs[index] for index in distinct], [kept[index] for index in distinct]
        stored, *others = _compute(model, layer, collate, ordered, marks_of, precision, poolings)
        if invalid := int((~np.isfinite(stored).all(axis=1)).sum()):
            raise BadModel(
                f"the base model {spec.base} in {base} gives NaN or infinite features for {invalid} of {len(stored)} vectors; "
                "choose another base model, or set train.precision to float32"
            )
        for key, array in zip(keys[1:], others, strict=True):
            if cache and len(array) == len(stored) and np.isfinite(array).all():
                cache.put(key, array)
        if cache:
            cache.put(keys[0], stored)
    sizes = np.array([1 if kept[index] is None else len(kept[index]) for index in distinct], dtype=np.int64)
    begin = dict(zip((names[index] for index in distinct), np.cumsum(sizes) - sizes, strict=True))
    counts = [1 if marks is None else len(marks) for marks in kept]
    sampled = np.repeat([name in first for name in names], counts)
    spans = [np.arange(begin[name], begin[name] + count) for name, count in zip(names, counts, strict=True) if name in first]
    rows = np.repeat(np.arange(len(names)), counts)[sampled]
    return FrozenFeatures(stored[np.concatenate(spans or [sizes])], targets[sampled], rows, rows, layer.bias is not None)


def _sample(rows: dict[bytes, int], kept: Sequence[Any], most: float) -> dict[bytes, int]:
    """Return the rows with the smallest names, which are hashes, that have at most `most` vectors together."""
    total = 0
    sampled = dict[bytes, int]()
    for name in sorted(rows):
        marks = kept[rows[name]]
        total += 1 if marks is None else len(marks)
        if total > most:
            log.info("frozen features: %d of %d different rows are sampled, because all need too much memory", len(sampled), len(rows))
            return sampled
        sampled[name] = rows[name]
    return sampled


def _read(table: pa.Table) -> tuple[list[dict[str, Any]], npt.NDArray[Any], list[Any]]:
    """Return the model inputs of each row, the targets, and per row the positions of labelled tokens; None if a row has one target."""
    names = [name for name in table.column_names if name not in ("labels", "length")]
    columns = [table.column(name).to_pylist() for name in names]
    inputs = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    labels, of = table.column("labels"), table.schema.field("labels").type
    if not (pa.types.is_list(of) and pa.types.is_integer(of.value_type)):
        return inputs, np.array(labels.to_pylist()), [None] * len(inputs)
    tokens = [np.array(row, dtype=np.int64) for row in labels.to_pylist()]
    kept = [np.flatnonzero(row != IGNORED) for row in tokens]
    return inputs, np.concatenate([row[row != IGNORED] for row in tokens] or [np.zeros(0, np.int64)]), kept


def _row_name(row: Mapping[str, Any], marks: Any) -> bytes:
    parts = [row[name] for name in sorted(row)] + ([] if marks is None else [marks])
    return hashlib.sha256(b"|".join(np.asarray(part, dtype=np.int64).tobytes() for part in parts)).digest()


def _poolings(model: Any, layer: Any, rows: int, longest: int) -> tuple[str, ...]:
    """Return the other poolings whose features one pass through the encoder of `model` gives too; none if that needs much memory."""
    poolings = tuple(getattr(model, "other_poolings", ()))
    states = _BATCH * longest * (1 + int(getattr(model.config, "num_hidden_layers", 0)))
    needed = 4 * layer.in_features * max(states, (1 + len(poolings)) * rows)
    return poolings if needed <= _SHARED_MIB * 2**20 else ()


def _keys(model: Any, layer: Any, spec: ModelSpec, rows: Sequence[bytes], precision: str, poolings: Sequence[str]) -> list[str]:
    """Return a digest of everything that the features depend on: weights below the output layer, config, code, rows, hardware.

    The first is that of the model as it is; the others are those of the same model with each of `poolings`.
    """
    import torch
    import transformers

    weights = hashlib.sha256()
    own = {id(tensor) for tensor in layer.parameters()}
    for name, tensor in sorted(model.named_parameters()) + sorted(model.named_buffers()):
        if id(tensor) not in own:
            weights.update(name.encode())
            weights.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    config = {name: value for name, value in model.config.to_dict().items() if name not in _LABELS}
    folders = [_CODE / "support", _CODE / "tasks" / spec.task]
    code = [digest_file(path) for folder in folders for path in sorted(folder.glob("*.py"))]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else torch.backends.cpu.get_cpu_capability()
    versions = [torch.__version__, transformers.__version__, _BATCH]
    hardware = [precision, torch.get_num_threads(), device]
    rows_digest = hashlib.sha256(b"".join(rows)).hexdigest()
    configs = [config, *({**config, "retune_head": {**config["retune_head"], "pooling": pooling}} for pooling in poolings)]
    return [digest_value([weights.hexdigest(), own_config, code, versions, hardware, rows_digest]) for own_config in configs]


def _compute(
    model: Any, layer: Any, collate: Any, rows: Sequence[dict[str, Any]], kept: Sequence[Any], precision: str, poolings: Sequence[str]
) -> list[npt.NDArray[np.float32]]:
    """Return the features of `rows`, in their order, from the model as it is and with each of `poolings`; none if it lacks a pooling."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device).eval()
    parts: list[list[npt.NDArray[np.float32]]] = [[np.zeros((0, layer.in_features), np.float32)] for _ in ("", *poolings)]
    with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        for start in range(0, len(rows), _BATCH):
            batch = dict(collate(_with_marks(rows[start : start + _BATCH], kept[start : start + _BATCH])).to(device))
            begins = batch.pop("labels", None)
            found = model.pooled_inputs(batch, poolings) if poolings else [_layer_inputs(model, layer, batch, by_token=begins is not None)]
            for own, vectors in zip(parts, found, strict=True):
                if vectors is not None:
                    own.append((vectors if begins is None else vectors[begins != IGNORED]).float().cpu().numpy())
    return [np.concatenate(own) for own in parts]


def _with_marks(rows: Sequence[dict[str, Any]], kept: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the rows, with labels that mark the tokens in `kept`: the collator pads them like the inputs."""
    marked = []
    for row, marks in zip(rows, kept, strict=True):
        labels = np.full(len(row["input_ids"]), IGNORED)
        if marks is not None:
            labels[marks] = 0
        marked.append(row if marks is None else row | {"labels": labels.tolist()})
    return marked


def _layer_inputs(model: Any, layer: Any, batch: Mapping[str, Any], *, by_token: bool) -> Any:
    """Return the inputs of `layer`: (batch, positions, width), or (batch, width) at the position that the model answers from."""
    if not by_token:
        # Some architectures select the position after the layer, so the layer passes its input through.
        hook = layer.register_forward_hook(lambda module, inputs, output: inputs[0])
        try:
            return model(**batch).logits
        finally:
            hook.remove()
    seen: list[Any] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    try:
        model(**batch)
    finally:
        hook.remove()
    return seen[-1]
