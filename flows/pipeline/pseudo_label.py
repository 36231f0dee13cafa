"""Pseudo-labels: texts without a label get the answer of a registered version where it is confident, marked as such in the data.

Reads a file of unlabelled rows and a version of the registry; writes a file that can stand beside the labelled one.
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

_ROWS = 10_000  # of a question: its answer is waited for as a whole


@dataclass(frozen=True)
class PseudoLabelled:
    """What was written: rows = below the floor + blank + the sum of `labels`, the rows written by label."""

    version: str
    floor: float
    rows: int
    labels: dict[str, int]
    below: int
    blank: int


def pseudo_label(workspace: Workspace, uri: str, unlabelled: Path, out: Path, model: str, floor: float) -> PseudoLabelled:
    """Ask `model` (NAME@ALIAS, NAME/VERSION) about the rows of `unlabelled`, and write those with a probability of `floor` or more.

    Columns are read and named as `snapshot` says, so that `out` and the labelled data can be one source: all columns of `unlabelled`, the
    label, and the marks `pseudo` (NAME/VERSION) and `confidence`.

    Raises:
        BadInput: `out` is there already, or a task has no probabilities, or no row reaches the floor.
        NotThere: no such version.
        BadModel: it was made for another task, or does not answer.
    """
    params = read_params(workspace.params)
    task, source = params.made_task, params.snapshot
    if not 0 < floor <= 1:
        raise BadParams(f"--floor {floor:g}: expected a probability above 0 and up to 1")
    if not task.classes:
        raise BadParams(f"the task {params.task} answers without a probability of one class, so there is nothing to hold against a floor")
    if out.exists():
        raise BadInput(f"{out} is there already; name another file, or remove it")
    if not out.parent.is_dir():
        raise BadInput(f"{out}: there is no folder {out.parent}; make it, or name another file")
    format_of([out])
    rows = read_file(unlabelled, source)
    label = source.columns.get("label", "label")
    asked = _inputs(rows, unlabelled, task, source, label)
    version = registry.resolve(uri, model.removeprefix("models:/"))
    whole = asked.apply(lambda column: column.fillna("").str.strip().ne("")).all(axis=1)
    if not whole.any():
        raise BadData(f"{unlabelled}: no row of {len(rows):,} has a text to ask about")
    labels, probabilities = _answers(workspace, uri, task, version, asked[whole])
    confidence = probabilities.max(axis=1)
    sure = confidence >= floor
    if not sure.any():
        highest = f"the highest of {len(confidence):,} is {confidence.max():.3f}"
        raise BadData(f"{unlabelled}: no row has a probability of --floor {floor:g} or more; {highest}")
    name = f"{version.name}/{version.number}"
    best = [labels[place] for place in probabilities[sure].argmax(axis=1)]
    written = rows[whole][sure].reset_index(drop=True)
    for column, cells in {label: best, MARKS[0]: [name] * len(best), MARKS[1]: [f"{value:.6f}" for value in confidence[sure]]}.items():
        written[column] = pd.Series(cells, dtype="str")
    write_file(written, out, source)
    warn_of_formulas(written, out)
    counts = Counter(best)
    return PseudoLabelled(
        version=name,
        floor=floor,
        rows=len(rows),
        labels={each: counts[each] for each in labels},
        below=int((~sure).sum()),
        blank=int((~whole).sum()),
    )


def warn_of_formulas(rows: pd.DataFrame, out: Path) -> None:
    """Warn of cells that a spreadsheet would compute: the file is learnt from, so that its cells stay as they are."""
    if format_of([out]) not in ("csv", "tsv"):
        return
    found = int(sum(rows[column].fillna("").str.match(r"[=+\-@\t\r]").sum() for column in rows))
    if found:
        log.warning(
            "%s: %d cells begin with =, +, -, @ or a tab, which a spreadsheet takes for formulas; they stay as they are, since they are "
            "learnt from: open the file as text, or write .jsonl or .parquet",
            *(out, found),
        )


def _inputs(rows: pd.DataFrame, path: Path, task: tasks.Task, source: SnapshotParams, label: str) -> pd.DataFrame:
    """Return what the model is asked with, the columns `inputs` of the task.

    Raises:
        BadSource: one of them is not there.
        BadData: rows have labels or marks already.
    """
    named = {name: source.columns.get(name, name) for name in task.inputs}
    if missing := [column for column in named.values() if column not in rows]:
        raise BadSource("\n".join(f"{path}: there is no column {each!r}{nearest(each, list(rows.columns))}" for each in missing))
    if taken := [column for column in MARKS if column in rows]:
        raise BadData(f"{path} has a column {taken[0]!r}, which marks pseudo-labels; leave it out")
    if label in rows and (known := int(rows[label].fillna("").str.strip().ne("").sum())):
        raise BadData(
            f"{path}: {known:,} of {len(rows):,} rows have a {label} already; leave them out, a label is worth more than an answer"
        )
    return pd.DataFrame({name: rows[column] for name, column in named.items()})


def _answers(
    workspace: Workspace, uri: str, task: tasks.Task, version: registry.Version, rows: pd.DataFrame
) -> tuple[tuple[str, ...], np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    """Return the labels of a version, and the probability of each for each row, (rows, labels)."""
    labels: tuple[str, ...] = ()
    found = []
    with ModelSessions(workspace, uri, task) as asked:
        for start in range(0, len(rows), _ROWS):
            answers = asked.session(version).answer(rows.iloc[start : start + _ROWS])
            labels = answers.labels
            found.append(answers.probabilities)
            log.info("%s answered %d of %d rows", version.uri, min(start + _ROWS, len(rows)), len(rows))
    return labels, np.concatenate(found)
