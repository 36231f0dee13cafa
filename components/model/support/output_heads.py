"""The rows of an output layer, one a label: those of a base are taken by the name that the base gives them, never by their place."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.core.errors import BadModel
from components.model.support import pretrained
from components.model.support.weight_check import listed, stored

log = logging.getLogger(__name__)

_GENERIC = re.compile(r"label[ _-]?\d+", re.IGNORECASE)
_SHOWN = 10


def take_rows(model: Any, folder: Path, labels: Sequence[str], kind: str, *, ordered: bool = False) -> Mapping[int, int]:
    """Give each of `labels`, the outputs of `model`, the row that the head in `folder` has for it; the other rows are drawn at random.

    `kind` is in the name of the architectures whose head this is. With `ordered` a row says something of the labels before it, too: it
    is taken only where these are the same. One log line says which rows were taken.

    Returns:
        For each place in `labels` whose row was taken, the row's place in the base's head.

    Raises:
        BadModel: the model has no output layer with a row a label.
    """
    import torch

    name, layer = _output_layer(model, len(labels))
    found = stored(folder, [f"{name}.weight", f"{name}.bias"])
    weight = found.get(f"{name}.weight")
    if weight is None or weight.shape[1:] != layer.weight.shape[1:]:
        log.info("head: all %d rows are drawn at random, since the base has no head of this kind", len(labels))
        return {}
    own, reason = _names(folder, len(weight), kind)
    rows = matched(own, labels, ordered=ordered)
    same = len(weight) == len(labels) and all(rows.get(place) == place for place in range(len(labels)))
    with torch.no_grad():
        if len(weight) == len(labels) and not same:  # transformers took them as they stand
            fresh = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
            model._init_weights(fresh)
            layer.load_state_dict(fresh.state_dict())
        for part in ("weight", "bias"):
            if (tensor := found.get(f"{name}.{part}")) is not None and (into := getattr(layer, part)) is not None:
                for place, row in rows.items():
                    into[place] = tensor[row].to(into)
    _report(labels, own, rows, reason)
    return rows


def matched(own: Sequence[str], labels: Sequence[str], *, ordered: bool = False) -> dict[int, int]:
    """Return for each place in `labels` the place in `own` with the same name; names that differ in case or blanks alone are the same.

    A name that stands twice matches nothing. With `ordered`, matching ends at the first label that stands elsewhere.
    """
    found: dict[int, int] = {}
    for form in (str, canonical):
        theirs, mine = _once(own, form), _once(labels, form)
        found |= {
            place: theirs[name]
            for name, place in mine.items()
            if place not in found and name in theirs and theirs[name] not in found.values()
        }
    if ordered:
        first = next((place for place in range(len(labels)) if found.get(place) != place), len(labels))
        found = {place: place for place in range(first)}
    return found


def canonical(name: str) -> str:
    """Return `name` in lower case, with one space where it has blanks."""
    return " ".join(name.casefold().split())


def _once(names: Sequence[str], form: Callable[[str], str]) -> dict[str, int]:
    counts = Counter(map(form, names))
    return {form(name): place for place, name in enumerate(names) if counts[form(name)] == 1}


def _output_layer(model: Any, outputs: int) -> tuple[str, Any]:
    """Return the last linear layer outside the pretrained part that has `outputs` rows, and its name."""
    import torch

    body = model.base_model
    inside = {id(part) for part in body.modules()} if body is not model else set()
    layers = [(name, part) for name, part in model.named_modules() if isinstance(part, torch.nn.Linear) and id(part) not in inside]
    fitting = [(name, part) for name, part in layers if part.out_features == outputs]
    if not fitting:
        raise BadModel(f"{type(model).__name__} has no output layer of {outputs} rows, one a label; choose another base.model")
    return fitting[-1]


def _names(folder: Path, rows: int, kind: str) -> tuple[list[str], str]:
    """Return what config.json calls the rows of its head, or nothing and why their names are not known."""
    config = pretrained.config(folder)
    made_for = [str(each) for each in config.get("architectures") or []]
    if made_for and not any(kind in each for each in made_for):
        return [], f"the base's head is that of a {', '.join(made_for)}"
    by_row = _by_row(config.get("id2label"))
    by_label = _by_row({str(row): label for label, row in _mapping(config.get("label2id")).items()})
    named = [each for each in (by_row, by_label) if each and not all(map(_GENERIC.fullmatch, each.values()))]
    if len(named) == 2 and any(named[0].get(row) != label for row, label in named[1].items()):
        return [], "id2label and label2id of the base's config.json disagree"
    names = (named or [each for each in (by_row, by_label) if each] or [{}])[0]
    if sorted(names) != list(range(rows)):
        return [], f"the base's config.json names {len(names)} labels, and its head has {rows} rows"
    ordered = [names[row] for row in range(rows)]
    return ordered, "the base's names say nothing of what its rows mean" if not named else ""


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _by_row(names: Any) -> dict[int, str]:
    return {int(row): str(label) for row, label in _mapping(names).items() if str(row).isdigit()}


def _report(labels: Sequence[str], own: Sequence[str], rows: Mapping[int, int], reason: str) -> None:
    drawn = [label for place, label in enumerate(labels) if place not in rows]
    if not rows:
        unlike = reason or f"none of the base's labels ({listed(own, _SHOWN)}) is one of them"
        log.info("head: all %d rows are drawn at random, since %s", len(labels), unlike)
        return
    said = [f"{len(rows)} of {len(labels)} rows are the base's, by label: {listed((labels[place] for place in sorted(rows)), _SHOWN)}"]
    said += [f"drawn at random: {listed(drawn, _SHOWN)}"] if drawn else []
    left = [name for row, name in enumerate(own) if row not in rows.values()]
    said += [f"left out of the base's: {listed(left, _SHOWN)}"] if left else []
    log.info("head: %s", "; ".join(said))
