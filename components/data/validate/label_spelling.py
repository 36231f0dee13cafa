"""Merge spellings of a label that look the same, and report labels that differ only in case or spaces."""

from collections import Counter, defaultdict
from collections.abc import Mapping

import pandas as pd

from components.core.errors import listed
from components.core.text import canonical_label, label_reader, twin_key
from components.data.validate.settings import ValidateParams, check_label_map
from components.model.tasks import Task

_NAMED = 10  # labels in a message


def merge_label_spellings(rows: pd.DataFrame, task: Task, settings: ValidateParams) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return `rows` with one spelling per label, using `validate.label_map` and look-alike characters, and the warnings.

    Labels that differ in case or inner spaces are reported, never merged.

    Raises:
        BadParams: a map is set, but the task has no labels.
    """
    check_label_map(settings, task.label_column)
    if task.label_column is None or task.label_column not in rows:
        return rows, ()
    read, counts = label_reader(settings.label_map), Counter[tuple[str, str]]()  # rows by (spelling, label)
    merged: dict[str, str] = {}
    for cell, count in rows[task.label_column].dropna().value_counts(sort=False).items():

        def read_and_count(spelling: str, times: int = int(count)) -> str:
            label = read(spelling)
            counts[spelling, label] += times
            return label

        if isinstance(cell, str):
            merged[cell] = task.rename_labels(cell, read_and_count)
    if any(old != new for old, new in merged.items()):
        column = rows[task.label_column]
        rows = rows.assign(**{task.label_column: column.where(~column.isin(merged), column.map(merged)).astype(column.dtype)})
    renamed = {pair: count for pair, count in counts.items() if pair[0] != pair[1]}
    return rows, (*_merged_warning(renamed), *_twin_warnings(counts), *_unused_warning(renamed, settings))


def _merged_warning(renamed: Mapping[tuple[str, str], int]) -> list[str]:
    pairs = sorted(renamed.items(), key=lambda item: (-item[1], item[0]))
    merged = [f"{_distinct_repr(spelling, label)} ({count}) as {label!r}" for (spelling, label), count in pairs]
    return [f"merged spellings of labels: {listed(merged, _NAMED)}"] if merged else []


def _twin_warnings(counts: Mapping[tuple[str, str], int]) -> list[str]:
    """Report labels that differ only in case or spaces."""
    labels = Counter[str]()
    for (_, label), count in counts.items():
        labels[label] += count
    by_key = defaultdict(list)
    for label in sorted(labels):
        by_key[twin_key(label)].append(label)
    return [_twin_warning(sorted(twins, key=lambda label: (-labels[label], label)), labels) for twins in by_key.values() if len(twins) > 1]


def _twin_warning(twins: list[str], counts: Counter[str]) -> str:
    names = ", ".join(f"{label!r} ({counts[label]})" for label in twins[:_NAMED])
    mapping = ", ".join(f"{label!r}: {twins[0]!r}" for label in twins[1:_NAMED])
    return f"labels {names} differ only in case, spaces or form; to merge them, set validate.label_map: {{{mapping}}}"


def _unused_warning(renamed: Mapping[tuple[str, str], int], settings: ValidateParams) -> list[str]:
    """Report the spellings in the map that no row has."""
    present = {canonical_label(spelling) for spelling, _ in renamed}
    unused = [spelling for spelling in settings.label_map if canonical_label(spelling) not in present]
    return [f"validate.label_map: no row has the label {', '.join(map(repr, unused))}"] if unused else []


def _distinct_repr(spelling: str, label: str) -> str:
    """Return the repr of a spelling, escaped if it would look like the label."""
    return ascii(spelling) if canonical_label(repr(spelling)) == repr(label) else repr(spelling)
