"""The data of the past: what earlier champions learnt from, and earlier test sets, out of DVC's cache; and regression sets."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import pandas as pd

from components import registry
from components.artifacts.earlier import Earlier, prepare_earlier
from components.artifacts.predictions import Predictions
from components.artifacts.rows import read_rows, read_snapshot
from components.errors import NotThere, RetuneError
from components.gates import Seen
from components.ledger import Entry
from components.snapshot import take_snapshot
from components.temporary import temporary
from flows import dvc
from flows.asked import Asked
from flows.opponents import Opponents
from flows.params import Params
from flows.workspace import Workspace

log = logging.getLogger(__name__)
LEARN = "data/prepared/learn"


def seen(workspace: Workspace, rivals: Opponents, known: Mapping[str, registry.Version]) -> Iterator[Seen]:
    """Yield what the champion learnt from, what all champions before it did, and each of them whose rows are not at hand."""
    if rivals.champion is not None:
        yield from _seen(workspace, "champion version {}", [rivals.champion], known)
    if rivals.before:
        yield from _seen(workspace, "earlier champions ({})", rivals.before, known)


def _seen(workspace: Workspace, called: str, entries: Sequence[Entry], known: Mapping[str, registry.Version]) -> Iterator[Seen]:
    """Yield the rows that any of these learnt from as one table, each text once with each label; snapshots alike are read once."""
    tables: dict[str, pd.DataFrame] = {}
    numbers = []
    for entry in entries:
        try:
            version = known.get(entry.key)
            if version is None:
                raise NotThere("it was deleted from the registry")
            digest = _made_with(version, LEARN)
            if digest not in tables:
                tables[digest] = learnt_by(workspace, version)
            numbers.append(str(version.number))
        except NotThere as error:
            log.warning("what version %d learnt from is not at hand: %s", entry.version, error)
            yield Seen(f"version {entry.version}", None, str(error))
    if tables:
        rows = pd.concat(tables.values(), ignore_index=True).drop_duplicates(["text", "label"], ignore_index=True)
        yield Seen(called.format(", ".join(numbers)), rows)


def learnt_by(workspace: Workspace, version: registry.Version) -> pd.DataFrame:
    """Return the rows (id, text, label) that a version was trained and validated on.

    Raises:
        NotThere: DVC's cache has them no more.
    """
    read = [cached_rows(workspace, version, LEARN, f"{split}.parquet") for split in ("train", "validation")]
    return pd.concat([rows[["id", "text", "label"]] for rows in read], ignore_index=True)


def cached_rows(workspace: Workspace, version: registry.Version, folder: str, name: str) -> pd.DataFrame:
    """Return a table that was an output of the stages when a version was made.

    Raises:
        NotThere: DVC's cache has it no more.
    """
    return read_rows(dvc.cached_file(workspace.root, _made_with(version, folder), name))


def _made_with(version: registry.Version, folder: str) -> str:
    digest: str | None = json.loads(version.tags.get("retune.dvc_lock", "{}")).get(folder)
    if digest is None:
        raise NotThere(f"version {version.number} does not say which {folder} it was made with")
    return digest


def earlier_tests(
    workspace: Workspace,
    asked: Asked,
    version: registry.Version,
    champion: registry.Version | None,
    known: dict[str, registry.Version],
    params: Params,
    test_digest: str,
    learnt: pd.DataFrame,
) -> Iterator[Earlier]:
    """Ask candidate and champion about the newest earlier test sets and the regression sets; without a champion nothing is forgotten.

    Rows that either of them learnt from are left out: they would favour it.
    """
    if champion is None:
        return
    sets = [*_past(workspace, version, known, params, test_digest), *_regression_sets(workspace, params)]
    try:
        texts = [*learnt["text"], *learnt_by(workspace, champion)["text"]] if sets else []
    except NotThere as error:
        yield from (Earlier(name, fault=f"which rows are new to the champion cannot be told: {error}") for name, _ in sets)
        return
    labels = Predictions.read(workspace.predictions / "candidate.parquet").labels or None
    for name, read in sets:
        try:
            rows, left_out = prepare_earlier(read(), texts, labels)
            mine, theirs = ([asked.about(one, rows) for one in (version, champion)]) if len(rows) else (None, None)
            yield Earlier(name, mine, theirs, left_out=left_out)
        except RetuneError as error:
            yield Earlier(name, fault=str(error))


def _past(
    workspace: Workspace, version: registry.Version, known: dict[str, registry.Version], params: Params, test_digest: str
) -> list[tuple[str, Callable[[], pd.DataFrame]]]:
    """Return the newest test sets of earlier versions that are not today's, and how to read them."""
    found: dict[str, registry.Version] = {}
    for one in sorted(known.values(), key=lambda each: -each.number):
        digest = one.tags.get("retune.test_digest", test_digest)
        if digest != test_digest and one.key != version.key:
            found.setdefault(digest, one)
    newest = list(found.items())[: params.gates.forgetting.last]
    return [
        (f"test set {digest[:8]} of version {one.number}", partial(cached_rows, workspace, one, "data/prepared/test", "test.parquet"))
        for digest, one in newest
    ]


def _regression_sets(workspace: Workspace, params: Params) -> list[tuple[str, Callable[[], pd.DataFrame]]]:
    return [(f"regression set {path}", partial(read_set, workspace, params, path)) for path in params.gates.forgetting.sets]


def read_set(workspace: Workspace, params: Params, path: str) -> pd.DataFrame:
    """Return the labelled rows of a file that the settings name, read as strictly as the data are; a row without an id gets its number."""
    with temporary() as folder:
        settings = params.snapshot.at(path).model_copy(update={"split_column": None, "split_files": False})
        take_snapshot(workspace.origin, folder / "set", snapshot=settings, required=params.made_task.columns)
        rows = read_snapshot(folder / "set").dropna(subset=list(params.made_task.columns)).reset_index(drop=True)
    rows, bad = params.made_task.read(rows)
    rows = rows.drop(index=list(bad)).reset_index(drop=True)
    numbers = pd.Series([f"row {place}" for place in range(len(rows))], dtype="str")
    ids = rows["id"].fillna(numbers) if "id" in rows else numbers
    return rows.assign(id=ids, group=rows["group"].fillna(ids) if "group" in rows else ids)
