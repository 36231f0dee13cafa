"""Predict texts or score a table: resolve names to files, tables and versions, then call the registry or `components.serving.batch`."""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace as changed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from components.core.documents import parse_json
from components.core.errors import BadData, BadInput, BadParams, BadSource, NotFound
from components.core.section import nearest
from components.core.temporary import temporary
from components.data import sql
from components.data.snapshot import SnapshotParams
from components.data.snapshot.sources import SourceRequest, source_of
from components.mlflow_store import registry
from components.model import tasks
from components.serving import batch
from components.serving.batch import ScoringManifest, ScoringSettings
from flows.project.params import read_params
from flows.project.stores import store
from flows.project.workspace import Workspace

TIME_FORMATS = {"date": "%Y-%m-%d", "time": "%H-%M-%S"}
_TEMPLATE = re.compile(r"\{([^{}]*)\}")


def score(workspace: Workspace, source: str, output: str, model: str, settings: ScoringSettings, replace: bool = False) -> ScoringManifest:
    """Answer all rows of `source` with a registered version, and write them with the answers to `output`.

    `source` is sql://NAME/TABLE, or a value of `snapshot.source` except sql://NAME; `output` is a folder or sql://NAME/TABLE; an empty
    `model` is the project's champion. Text files are read according to `snapshot` in params.yaml. Inputs are found by their own name, or,
    for the project's own model, by the column in `snapshot.columns`.

    Raises:
        BadInput: the input or the output is not valid.
        NotFound: the version does not exist.
        Unavailable: another process scores into `output`, or something is busy, full or unreachable; the same call resumes later.
    """
    params = read_params(workspace.params)
    name = model or params.name
    target = _output(workspace, output)
    if source == output:
        raise BadInput(f"{source} is both input and output; choose another folder or table for the answers")
    own_model = re.split("[@/]", name.removeprefix("models:/"))[0] == params.name
    defaults = params.snapshot.columns if own_model else {}
    return batch.score(
        store(workspace),
        name,
        lambda: _open_source(source, params.snapshot, target),
        target,
        changed(settings, default_columns=defaults),
        replace,
    )


def predict(workspace: Workspace, version: str, questions: Sequence[str]) -> list[dict[str, Any]]:
    """Predict with a version number or an alias, by the code that was packaged with it.

    A question is a text, or a JSON object with all inputs if the task has several.

    Raises:
        NotFound: the model has no such version.
        BadData: a question is not such an object.
    """
    name, uri = read_params(workspace.params).name, store(workspace)
    if not registry.versions(uri, name):
        raise NotFound(f"{name} has no version yet; `retune run` registers one")
    reference = f"{name}/{version}" if version.isdigit() else f"{name}@{version}"
    rows = _as_rows(tasks.of(registry.spec_of(uri, reference)).inputs, questions)  # the inputs of the version, not of the current task
    answers = registry.predict(uri, reference, rows)
    return [{str(key): value for key, value in row.items()} for row in answers.to_dict(orient="records")]


def _as_rows(inputs: Sequence[str], questions: Sequence[str]) -> pd.DataFrame:
    """Return the questions as a table with the columns `inputs`; several inputs need a JSON object with exactly those."""
    if len(inputs) == 1:
        return pd.DataFrame({inputs[0]: pd.Series(list(questions), dtype="str")})
    rows = []
    for number, text in enumerate(questions, 1):
        try:
            row = parse_json(text, f"question {number}")
        except BadParams:
            row = None
        if not isinstance(row, dict) or set(row) != set(inputs):
            keys = ", ".join(f'"{name}": …' for name in inputs)
            raise BadData(f"question {number}: expected a JSON object {{{keys}}}, with each key once, found {text[:80]!r}")
        rows.append({name: cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False) for name, cell in row.items()})
    return pd.DataFrame(rows, columns=list(inputs), dtype="str")


def expand(template: str, time: datetime) -> str:
    """Return `template` with {date} as 2026-11-28 and {time} as 14-05-09, in UTC; raise BadParams for another name."""
    for name in _TEMPLATE.findall(template):
        if name not in TIME_FORMATS:
            raise BadParams(f"{template}: unknown placeholder {{{name}}}{nearest(name, list(TIME_FORMATS))}")
    return _TEMPLATE.sub(lambda match: time.astimezone(UTC).strftime(TIME_FORMATS[match[1]]), template)


def read_columns(pairs: Sequence[str]) -> dict[str, str]:
    """Return INPUT=COLUMN pairs as a mapping; raise BadParams for another format, or an input that is repeated."""
    columns = {}
    for pair in pairs:
        name, equals, column = pair.partition("=")
        if not (name and equals and column) or name in columns:
            raise BadParams(f"--column {pair}: expected INPUT=COLUMN, each input once, such as text=description")
        columns[name] = column
    return columns


@contextmanager
def _open_source(source: str, settings: SnapshotParams, target: batch.FolderTarget | batch.TableTarget) -> Iterator[batch.Files]:
    """Yield the rows to score; remote rows are downloaded into a temporary folder first."""
    with temporary() as folder:
        if source.startswith(sql.SCHEME):
            path = folder / "rows.parquet"
            sql.fetch_table(sql.parse_address(source, os.environ), path)
            yield batch.Files({path: source}, settings, source)
            return
        located = settings.at(source)
        try:
            files = source_of(located).fetch(SourceRequest(located, Path.cwd(), os.environ), folder)
        except (BadSource, BadParams) as error:  # the source is an argument here, not a setting of params.yaml
            raise type(error)(str(error).replace("params.yaml: ", "").replace("snapshot.source ", "")) from None
        if inside := next((path for path in files.files if path.absolute().is_relative_to(str(target))), None):
            raise BadInput(f"{target} is both input and output: it contains {inside}; choose another folder for the answers")
        yield batch.Files(files.files, settings, source, files.relist)


def _output(workspace: Workspace, output: str) -> batch.FolderTarget | batch.TableTarget:
    if output.startswith(sql.SCHEME):
        return batch.TableTarget(sql.parse_address(output, os.environ), workspace.var)
    if not output.strip():
        raise BadInput("the output is empty: expected a folder or sql://NAME/TABLE")
    if "://" in output:
        raise BadInput(f"{output.partition('://')[0]}://…: expected a folder or sql://NAME/TABLE as output")
    return batch.FolderTarget(Path(output).expanduser().absolute())
