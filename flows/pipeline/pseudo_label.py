"""Pseudo-labels: label texts with a registered version where it is confident, and mark them in the data.

Reads a file of unlabelled rows and a registered version; writes a file that can be used together with the labelled one.
Lee, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks" (2013).
"""

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from components.artifacts.rows import MARKS
from components.core.errors import BadData, BadInput, BadParams, BadSource
from components.core.section import nearest
from components.data.snapshot import SnapshotParams, read_file, write_file
from components.data.snapshot.tables import format_of
from components.mlflow_store import registry
from components.model import tasks
from flows.pipeline.model_sessions import ModelSessions
from flows.project.params import read_params
from flows.project.workspace import Workspace

log = logging.getLogger(__name__)

_ROWS = 10_000  # per request


@dataclass(frozen=True)
class PseudoLabelled:
    """Counts of rows: `rows` = `below` the minimum probability + `blank` + the sum of `labels`, the rows written by label."""

    version: str
    floor: float
    rows: int
    labels: dict[str, int]
    below: int
    blank: int


def pseudo_label(workspace: Workspace, uri: str, unlabelled: Path, out: Path, model: str, min_probability: float) -> PseudoLabelled:
    """Predict the rows of `unlabelled` with `model` (default: the champion), and write those with at least `min_probability`.

    Columns are read and named by the section `snapshot`, so that `out` and the labelled data can be one source: all columns of
    `unlabelled`, the label, and the marks `pseudo` (NAME/VERSION) and `confidence`.

    Raises:
        BadInput: `out` exists, the task has no probabilities, or no row reaches the minimum probability.
        NotFound: the version does not exist.
        BadModel: it was built for another task, or does not answer.
    """
    params = read_params(workspace.params)
    task, source = params.made_task, params.snapshot
    if not 0 < min_probability <= 1:
        raise BadParams(f"--min-probability {min_probability:g}: expected a probability above 0 and up to 1")
    if not task.classes:
        raise BadParams(f"the task {params.task} has no probability per class, so there is none to compare with --min-probability")
    if out.exists():
        raise BadInput(f"{out} exists; give another file, or remove it")
    if not out.parent.is_dir():
        raise BadInput(f"{out}: the folder {out.parent} does not exist; create it, or give another file")
    format_of([out])
    rows = read_file(unlabelled, source)
    label = source.columns.get("label", "label")
    inputs = _inputs(rows, unlabelled, task, source, label)
    version = registry.resolve(uri, (model or params.name).removeprefix("models:/"))
    complete = inputs.apply(lambda column: column.fillna("").str.strip().ne("")).all(axis=1)
    if not complete.any():
        raise BadData(f"{unlabelled}: none of {len(rows):,} rows has a text")
    labels, probabilities = _predict(workspace, uri, task, version, inputs[complete])
    confidence = probabilities.max(axis=1)
    confident = confidence >= min_probability
    if not confident.any():
        highest = f"the highest of {len(confidence):,} is {confidence.max():.3f}"
        raise BadData(f"{unlabelled}: no row has a probability of at least --min-probability {min_probability:g}; {highest}")
    name = f"{version.name}/{version.number}"
    best = [labels[index] for index in probabilities[confident].argmax(axis=1)]
    written = rows[complete][confident].reset_index(drop=True)
    for column, cells in {label: best, MARKS[0]: [name] * len(best), MARKS[1]: [f"{value:.6f}" for value in confidence[confident]]}.items():
        written[column] = pd.Series(cells, dtype="str")
    write_file(written, out, source)
    warn_of_formulas(written, out)
    counts = Counter(best)
    return PseudoLabelled(
        version=name,
        floor=min_probability,
        rows=len(rows),
        labels={label: counts[label] for label in labels},
        below=int((~confident).sum()),
        blank=int((~complete).sum()),
    )


def warn_of_formulas(rows: pd.DataFrame, out: Path) -> None:
    """Warn about cells that a spreadsheet would evaluate; they are training data and must stay unchanged."""
    if format_of([out]) not in ("csv", "tsv"):
        return
    if count := int(sum(rows[column].fillna("").str.match(r"[=+\-@\t\r]").sum() for column in rows)):
        log.warning(
            "%s: %d cells start with =, +, -, @ or a tab, which a spreadsheet evaluates as formulas; they are kept, since they are "
            "training data: open the file as text, or write .jsonl or .parquet",
            *(out, count),
        )


def _inputs(rows: pd.DataFrame, path: Path, task: tasks.Task, source: SnapshotParams, label: str) -> pd.DataFrame:
    """Return the input columns of the task; rows must have no labels or marks yet."""
    named = {name: source.columns.get(name, name) for name in task.inputs}
    if missing := [column for column in named.values() if column not in rows]:
        raise BadSource("\n".join(f"{path}: there is no column {column!r}{nearest(column, list(rows.columns))}" for column in missing))
    if taken := [column for column in MARKS if column in rows]:
        raise BadData(f"{path} has a column {taken[0]!r}, which marks pseudo-labels; remove it")
    if label in rows and (labelled := int(rows[label].fillna("").str.strip().ne("").sum())):
        raise BadData(f"{path}: {labelled:,} of {len(rows):,} rows already have a {label}; remove these rows")
    return pd.DataFrame({name: rows[column] for name, column in named.items()})


def _predict(
    workspace: Workspace, uri: str, task: tasks.Task, version: registry.Version, rows: pd.DataFrame
) -> tuple[tuple[str, ...], np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    """Return the labels of a version and their probabilities, of shape (rows, labels)."""
    parts = []
    with ModelSessions(workspace, uri, task) as sessions:
        for start in range(0, len(rows), _ROWS):
            answers = sessions.session(version).answer(rows.iloc[start : start + _ROWS])
            parts.append(answers.probabilities)
            log.info("%s predicted %d of %d rows", version.uri, min(start + _ROWS, len(rows)), len(rows))
    return answers.labels, np.concatenate(parts)
