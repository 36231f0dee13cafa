"""Merge spellings of a label that look the same, and report labels that differ only in case or spaces."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd

from components.core.text import canonical_label, label_reader, twin_key
from components.data.validate.settings import ValidateParams, check_label_map
from components.model.tasks import Task

_NAMED = 10  # labels in a message


@dataclass
class LabelCounts:
    """Number of rows by label, and by (spelling, label) for other spellings."""

    labels: Counter[str] = field(default_factory=Counter)
    spellings: Counter[tuple[str, str]] = field(default_factory=Counter)

    def counting(self, read: Callable[[str], str], times: int) -> Callable[[str], str]:
        """Wrap `read` so that each label it returns is counted `times` times."""

        def counted(name: str) -> str:
            label = read(name)
            self.labels[label] += times
            if name != label:
                self.spellings[name, label] += times
            return label

        return counted


def merge_label_spellings(rows: pd.DataFrame, task: Task, settings: ValidateParams) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return `rows` with one spelling per label, using `validate.label_map` and look-alike characters, and the warnings.

    Labels that differ in case or inner spaces are reported, never merged.

    Raises:
        BadParams: a map is set, but the task has no labels.
    """
    check_label_map(settings, task.label_column)
    if task.label_column is None or task.label_column not in rows:
        return rows, ()
    read, counts = label_reader(settings.label_map), LabelCounts()
    merged: dict[str, str] = {}
    for cell, count in rows[task.label_column].dropna().value_counts(sort=False).items():
        if isinstance(cell, str):
            merged[cell] = task.rename_labels(cell, counts.counting(read, int(count)))
    if any(old != new for old, new in merged.items()):
        column = rows[task.label_column]
        rows = rows.assign(**{task.label_column: column.where(~column.isin(merged), column.map(merged)).astype(column.dtype)})
    return rows, (*_merged_warning(counts), *_twin_warnings(counts.labels), *_unused_warning(counts, settings))


def _merged_warning(counts: LabelCounts) -> list[str]:
    """Report which spellings became which label."""
    spellings = sorted(counts.spellings.items(), key=lambda item: (-item[1], item[0]))
    listed = [f"{_distinct_repr(spelling, label)} ({count}) as {label!r}" for (spelling, label), count in spellings[:_NAMED]]
    more = f" and {len(spellings) - _NAMED} more" if len(spellings) > _NAMED else ""
    return [f"merged spellings of labels: {', '.join(listed)}{more}"] if listed else []


def _twin_warnings(counts: Counter[str]) -> list[str]:
    """Report labels that differ only in case or spaces."""
    by_key = defaultdict(list)
    for label in sorted(counts):
        by_key[twin_key(label)].append(label)
    return [_twin_warning(sorted(twins, key=lambda label: (-counts[label], label)), counts) for twins in by_key.values() if len(twins) > 1]


def _twin_warning(twins: list[str], counts: Counter[str]) -> str:
    listed = ", ".join(f"{label!r} ({counts[label]})" for label in twins[:_NAMED])
    mapping = ", ".join(f"{label!r}: {twins[0]!r}" for label in twins[1:_NAMED])
    return f"labels {listed} differ only in case, spaces or form; to merge them, set validate.label_map: {{{mapping}}}"


def _unused_warning(counts: LabelCounts, settings: ValidateParams) -> list[str]:
    """Report the spellings in the map that no row has."""
    present = {canonical_label(spelling) for spelling, _ in counts.spellings}
    unused = [spelling for spelling in settings.label_map if canonical_label(spelling) not in present]
    return [f"validate.label_map: no row has the label {', '.join(map(repr, unused))}"] if unused else []


def _distinct_repr(spelling: str, label: str) -> str:
    """Return the repr of a spelling, escaped if it would look like the label."""
    return ascii(spelling) if canonical_label(repr(spelling)) == repr(label) else repr(spelling)
