"""Name the task options that fit labels which a check rejects."""

from collections.abc import Iterator, Mapping, Set

import pandas as pd

from components.model.tasks import Task

_SEPARATORS = (";", "|", ",")
_SHARE_OF_LISTS = 0.05  # labels with a separator from which the column has lists


def hints(task: Task, labels: "pd.Series[str]", failed: Set[str], reasons: Mapping[str, int]) -> Iterator[str]:
    """Yield the settings that fit; `failed` are the names of failed checks, `reasons` count the rows in quarantine by reason."""
    options = type(task.options).model_fields
    if "kind" in options and task.classes:
        if "numeric_labels" in failed:
            yield "if the numbers are levels, e.g. 1 to 5 stars, set task_options: {kind: ordinal}; if they are values, {kind: regression}"
        if failed & {"min_rows_per_class", "numeric_labels", "two_classes"}:
            yield from _lists(labels)
    if "kind" in options and any("label is not a number" in reason for reason in reasons):
        yield "labels that are words need task_options: {kind: single}, or {kind: ordinal, levels: [lowest, …, highest]}"
    if "scheme" in options:
        if any("neither O nor one of" in reason for reason in reasons):
            yield "for tags that are no entities, e.g. NOUN, set task_options: {scheme: plain}; for B-, I-, E- and S-, {scheme: BIOES}"
        if any("follows no B- or I-" in reason for reason in reasons):
            yield "tags that begin entities with I- are IOB1: `retune convert` writes BIO for CoNLL files"


def _lists(labels: "pd.Series[str]") -> Iterator[str]:
    lists = int(labels.str.match(r"\s*\[").sum())
    if lists > _SHARE_OF_LISTS * len(labels):
        yield (
            f"{lists:,} of {len(labels):,} labels are lists: for several labels a row, set task_options: {{kind: multi}}; for a "
            "tag per token, task: token_classification"
        )
        return
    for separator in _SEPARATORS:
        several = int(labels.str.contains(separator, regex=False).sum())
        if several > _SHARE_OF_LISTS * len(labels):
            option = "" if separator == ";" else f", separator: '{separator}'"
            yield (
                f"{several:,} of {len(labels):,} labels contain {separator!r}: if it separates several labels of a row, set task_options: "
                f"{{kind: multi{option}}}"
            )
            return
