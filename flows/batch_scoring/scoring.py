"""Batch scoring by a command or a schedule: resolves names to files, tables and versions, and calls `components.serving.batch`."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace as changed
from datetime import UTC, datetime
from pathlib import Path

from components.core.errors import BadInput, BadParams, BadSource
from components.core.section import nearest
from components.core.temporary import temporary
from components.data import sql
from components.data.snapshot import SnapshotParams
from components.data.snapshot.sources import SourceRequest, source_of
from components.serving import batch
from components.serving.batch import ScoringManifest, ScoringSettings
from flows.project.params import read_params
from flows.project.stores import store
from flows.project.workspace import Workspace

MOMENTS = {"date": "%Y-%m-%d", "time": "%H-%M-%S"}
_TEMPLATE = re.compile(r"\{([^{}]*)\}")


def score(workspace: Workspace, given: str, output: str, model: str, settings: ScoringSettings, replace: bool = False) -> ScoringManifest:
    """Let a version of the registry answer all rows of `given`, and write them with the answers into `output`.

    `given` is sql://NAME/TABLE, or what `snapshot.source` may be but for sql://NAME; `output` a folder or sql://NAME/TABLE; no `model` is
    the project's champion.
    Text files are read as `snapshot` of params.yaml says. A column is found by the name of the input, or for the project's own model by
    the name that `snapshot.columns` gives it.

    Raises:
        BadInput: nothing fits to be scored, or what stands in `output` is not what this command began.
        NotThere: no such version.
        Unavailable: another process scores into `output`, or something is busy, full or out of reach; the same call goes on later.
    """
    params = read_params(workspace.params)
    name = model or params.name
    target = _output(workspace, output)
    if given == output:
        raise BadInput(f"{given} would be read and written; name another folder or table for the answers")
    own = re.split("[@/]", name.removeprefix("models:/"))[0] == params.name
    defaults = params.snapshot.columns if own else {}
    return batch.score(
        store(workspace),
        name,
        lambda: _source(given, params.snapshot, target),
        target,
        changed(settings, default_columns=defaults),
        replace,
    )


def expand(template: str, moment: datetime) -> str:
    """Return `template` with {date} as 2026-11-28 and {time} as 14-05-09, in UTC.

    Raises:
        BadParams: something else stands in braces.
    """
    for name in _TEMPLATE.findall(template):
        if name not in MOMENTS:
            raise BadParams(f"{template}: {{{name}}} is nothing that is filled in{nearest(name, list(MOMENTS))}")
    return _TEMPLATE.sub(lambda found: moment.astimezone(UTC).strftime(MOMENTS[found[1]]), template)


def read_columns(pairs: Sequence[str]) -> dict[str, str]:
    """Return INPUT=COLUMN pairs as a mapping.

    Raises:
        BadParams: something is no such pair.
    """
    found = {}
    for pair in pairs:
        name, equals, column = pair.partition("=")
        if not (name and equals and column) or name in found:
            raise BadParams(f"--column {pair}: expected INPUT=COLUMN, each input once, as text=description")
        found[name] = column
    return found


@contextmanager
def _source(given: str, settings: SnapshotParams, target: batch.FolderTarget | batch.TableTarget) -> Iterator[batch.Files]:
    """Give the rows to score; what lies elsewhere is brought into a temporary folder first."""
    with temporary() as folder:
        if given.startswith(sql.SCHEME):
            path = folder / "rows.parquet"
            sql.bring(sql.find(given, os.environ), path)
            yield batch.Files({path: given}, settings, given)
            return
        here = settings.at(given)
        try:
            brought = source_of(here).bring(SourceRequest(here, Path.cwd(), os.environ), folder)
        except (BadSource, BadParams) as error:  # a person named it here, and not in params.yaml
            raise type(error)(str(error).replace("params.yaml: ", "").replace("snapshot.source ", "")) from None
        if inside := next((path for path in brought.files if path.absolute().is_relative_to(str(target))), None):
            raise BadInput(f"{target} would be read and written: {inside} is in it; name another folder for the answers")
        yield batch.Files(brought.files, settings, given, brought.listed)


def _output(workspace: Workspace, output: str) -> batch.FolderTarget | batch.TableTarget:
    if output.startswith(sql.SCHEME):
        return batch.TableTarget(sql.find(output, os.environ), workspace.var)
    if not output.strip():
        raise BadInput("no output is named: expected a folder or sql://NAME/TABLE to write into, found an empty text")
    if "://" in output:
        raise BadInput(f"{output.partition('://')[0]}://…: expected a folder or sql://NAME/TABLE to write into")
    return batch.FolderTarget(Path(output).expanduser().absolute())
