"""Initializes the rows of an output layer, one per label, from the base's rows with the same label name, never by index."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.core.errors import BadModel, listed
from components.model.support import pretrained
from components.model.support.weight_check import stored

log = logging.getLogger(__name__)

_GENERIC = re.compile(r"label[ _-]?\d+", re.IGNORECASE)
_SHOWN = 10


def take_rows(model: Any, folder: Path, labels: Sequence[str], architecture: str, *, ordered: bool = False) -> Mapping[int, int]:
    """Copy the rows of `labels` from the head in `folder` into `model`, and draw the other rows at random; log which rows were copied.

    `architecture` is part of the names of the architectures with this head. With `ordered`, a row also depends on the labels before it,
    so it is copied only if these are equal. Return the row in the base's head by the index of the label that it was copied for.
    Raise BadModel if the model has no output layer with one row per label.
    """
    import torch

    name, layer = output_layer(model, len(labels))
    tensors = stored(folder, [f"{name}.weight", f"{name}.bias"])
    weight = tensors.get(f"{name}.weight")
    if weight is None or weight.shape[1:] != layer.weight.shape[1:]:
        log.info("head: all %d rows are initialised randomly: the base has no head for this task", len(labels))
        return {}
    base_labels, reason = _names(folder, len(weight), architecture)
    rows = match_labels(base_labels, labels, ordered=ordered)
    same = len(weight) == len(labels) and all(rows.get(index) == index for index in range(len(labels)))
    with torch.no_grad():
        if len(weight) == len(labels) and not same:  # transformers copied them by index
            fresh = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
            model._init_weights(fresh)
            layer.load_state_dict(fresh.state_dict())
        for part in ("weight", "bias"):
            if (tensor := tensors.get(f"{name}.{part}")) is not None and (into := getattr(layer, part)) is not None:
                for index, row in rows.items():
                    into[index] = tensor[row].to(into)
    _log_rows(labels, base_labels, rows, reason)
    return rows


def match_labels(base_labels: Sequence[str], labels: Sequence[str], *, ordered: bool = False) -> dict[int, int]:
    """Return for each index in `labels` the index in `base_labels` with the same name, ignoring case and blanks if necessary.

    A name that occurs twice matches nothing. With `ordered`, matching ends at the first label with a different index.
    """
    matches: dict[int, int] = {}
    for form in (str, canonical):
        in_base, in_labels = _unique(base_labels, form), _unique(labels, form)
        matches |= {
            index: in_base[name]
            for name, index in in_labels.items()
            if index not in matches and name in in_base and in_base[name] not in matches.values()
        }
    if ordered:
        first = next((index for index in range(len(labels)) if matches.get(index) != index), len(labels))
        matches = {index: index for index in range(first)}
    return matches


def canonical(name: str) -> str:
    """Return `name` in lower case with single spaces."""
    return " ".join(name.casefold().split())


def _unique(names: Sequence[str], form: Callable[[str], str]) -> dict[str, int]:
    counts = Counter(map(form, names))
    return {form(name): index for index, name in enumerate(names) if counts[form(name)] == 1}


def output_layer(model: Any, outputs: int) -> tuple[str, Any]:
    """Return name and module of the last linear layer outside the pretrained part with `outputs` rows."""
    import torch

    body = model.base_model
    inside = {id(part) for part in body.modules()} if body is not model else set()
    layers = [(name, part) for name, part in model.named_modules() if isinstance(part, torch.nn.Linear) and id(part) not in inside]
    fitting = [(name, part) for name, part in layers if part.out_features == outputs]
    if not fitting:
        raise BadModel(f"{type(model).__name__} has no output layer of {outputs} rows, one per label; choose another base.model")
    return fitting[-1]


def _names(folder: Path, rows: int, architecture: str) -> tuple[list[str], str]:
    """Return the label names of the head's rows in config.json; an empty list and the reason if they are unknown."""
    config = pretrained.config(folder)
    architectures = [str(name) for name in config.get("architectures") or []]
    if architectures and not any(architecture in name for name in architectures):
        return [], f"the base's head belongs to {', '.join(architectures)}"
    by_row = _by_row(config.get("id2label"))
    by_label = _by_row({str(row): label for label, row in _mapping(config.get("label2id")).items()})
    named = [names for names in (by_row, by_label) if names and not all(map(_GENERIC.fullmatch, names.values()))]
    if len(named) == 2 and any(named[0].get(row) != label for row, label in named[1].items()):
        return [], "id2label and label2id of the base's config.json disagree"
    names = (named or [names for names in (by_row, by_label) if names] or [{}])[0]
    if sorted(names) != list(range(rows)):
        return [], f"the base's config.json names {len(names)} labels, but its head has {rows} rows"
    ordered = [names[row] for row in range(rows)]
    return ordered, "the base's label names are generic" if not named else ""


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _by_row(names: Any) -> dict[int, str]:
    return {int(row): str(label) for row, label in _mapping(names).items() if str(row).isdigit()}


def _log_rows(labels: Sequence[str], base_labels: Sequence[str], rows: Mapping[int, int], reason: str) -> None:
    drawn = [label for index, label in enumerate(labels) if index not in rows]
    if not rows:
        reason = reason or f"none of the base's labels ({listed(base_labels, _SHOWN)}) occurs in the data"
        log.info("head: all %d rows are initialised randomly: %s", len(labels), reason)
        return
    notes = [f"{len(rows)} of {len(labels)} rows copied from the base by label: {listed([labels[i] for i in sorted(rows)], _SHOWN)}"]
    notes += [f"initialised randomly: {listed(drawn, _SHOWN)}"] if drawn else []
    unused = [name for row, name in enumerate(base_labels) if row not in rows.values()]
    notes += [f"unused labels of the base: {listed(unused, _SHOWN)}"] if unused else []
    log.info("head: %s", "; ".join(notes))
