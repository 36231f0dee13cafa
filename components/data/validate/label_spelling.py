"""One spelling for each label: those that look the same become one and are counted, those that nearly do are named."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd

from components.core.text import canonical_label, label_reader, twin_key
from components.data.validate.settings import ValidateParams, check_label_map
from components.model.tasks import Task

_NAMED = 10  # labels that a sentence lists


@dataclass
class Labels:
    """How often each label was found, by its name, and how often under another spelling, by (spelling, name)."""

    found: Counter[str] = field(default_factory=Counter)
    spelt: Counter[tuple[str, str]] = field(default_factory=Counter)

    def counting(self, read: Callable[[str], str], times: int) -> Callable[[str], str]:
        """Return `read`, and count each label that it is asked for as found so many times."""

        def counted(name: str) -> str:
            label = read(name)
            self.found[label] += times
            if name != label:
                self.spelt[name, label] += times
            return label

        return counted


def relabel(rows: pd.DataFrame, kind: Task, settings: ValidateParams) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return `rows` with one spelling for each label, as `validate.label_map` and the eye have it, and what a person should know of that.

    Case and blanks within a label are never folded: such twins are named.

    Raises:
        BadParams: there is a map, and the task has no labels.
    """
    check_label_map(settings, kind.label_column)
    if kind.label_column is None or kind.label_column not in rows:
        return rows, ()
    read, labels = label_reader(settings.label_map), Labels()
    new: dict[str, str] = {}
    for cell, count in rows[kind.label_column].dropna().value_counts(sort=False).items():
        if isinstance(cell, str):
            new[cell] = kind.rename_labels(cell, labels.counting(read, int(count)))
    if any(cell != other for cell, other in new.items()):
        column = rows[kind.label_column]
        rows = rows.assign(**{kind.label_column: column.where(~column.isin(new), column.map(new)).astype(column.dtype)})
    return rows, (*_merged(labels), *_twins(labels.found), *_idle(labels, settings))


def _merged(labels: Labels) -> list[str]:
    """Say which spellings became which label."""
    found = sorted(labels.spelt.items(), key=lambda item: (-item[1], item[0]))
    said = [f"{_shown(spelling, label)} ({count}) as {label!r}" for (spelling, label), count in found[:_NAMED]]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return [f"labels read under one name: {', '.join(said)}{more}"] if said else []


def _twins(found: Counter[str]) -> list[str]:
    """Name the labels that differ only in case or blanks."""
    by_key = defaultdict(list)
    for label in sorted(found):
        by_key[twin_key(label)].append(label)
    return [_twin(sorted(twins, key=lambda label: (-found[label], label)), found) for twins in by_key.values() if len(twins) > 1]


def _twin(twins: list[str], found: Counter[str]) -> str:
    listed = ", ".join(f"{label!r} ({found[label]})" for label in twins[:_NAMED])
    mapping = ", ".join(f"{label!r}: {twins[0]!r}" for label in twins[1:_NAMED])
    return f"labels {listed} differ only in case, blanks or form; if they are one, merge them: validate.label_map: {{{mapping}}}"


def _idle(labels: Labels, settings: ValidateParams) -> list[str]:
    """Name what the map says of spellings that no row has."""
    seen = {canonical_label(spelling) for spelling, _ in labels.spelt}
    idle = [spelling for spelling in settings.label_map if canonical_label(spelling) not in seen]
    return [f"validate.label_map: no row has the label {', '.join(map(repr, idle))}"] if idle else []


def _shown(spelling: str, label: str) -> str:
    """Write a spelling so that it can be told from the label."""
    return ascii(spelling) if canonical_label(repr(spelling)) == repr(label) else repr(spelling)
