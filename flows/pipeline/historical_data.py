"""Historical data: training rows of earlier champions and earlier test sets from DVC's cache, and regression sets."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from components.artifacts.past_test_set import PastTestSet, prepare_earlier
from components.artifacts.predictions import Predictions
from components.artifacts.profile import Profile
from components.artifacts.rows import read_rows, read_snapshot
from components.core.errors import BadParams, NotFound, RetuneError
from components.core.similarity import row_key, similar_pairs
from components.core.temporary import temporary
from components.core.text import grouped, label_reader, text_key
from components.data.snapshot import take_snapshot
from components.gates import settings_of
from components.gates.support.evidence import TrainingRows
from components.gates.support.evidence_settings import OverlapSettings, PastTestSettings
from components.ledger import Entry
from components.mlflow_store import registry
from components.mlflow_store.registry import artifact_access
from components.model.base_resolver import REGISTERED
from flows.dvc_adapter.cache import cached_file
from flows.pipeline.model_sessions import ModelSessions
from flows.pipeline.reference_models import ReferenceModels
from flows.project.params import Params
from flows.project.workspace import Workspace

log = logging.getLogger(__name__)
LEARN, TEST = "data/prepared/learn", "data/prepared/test"
By = Literal["candidate", "champion", "best_champion", "earlier"]


def training_rows(
    workspace: Workspace, uri: str, version: registry.Version, references: ReferenceModels, known: Mapping[str, registry.Version]
) -> Iterator[TrainingRows]:
    """Yield the training rows of champion and best champion, those that compared models inherit, and those of all earlier champions.

    A model inherits the training rows of the registered versions that it was fine-tuned from. If rows are not available, the fault is
    yielded.
    """
    compared: list[tuple[By, str, Entry | None]] = [
        ("champion", "champion version {}", references.champion),
        ("best_champion", "the best champion so far, version {},", references.best_champion),
    ]
    models: list[tuple[By, registry.Version]] = [("candidate", version)]
    for by, display_name, entry in compared:
        if entry is not None:
            yield from _rows_of_entries(workspace, display_name, [entry], known, by)
            models += [(by, known[entry.key])] if entry.key in known else []
    bases: set[str] = set()
    for by, model in models:
        for base, result in inherited(workspace.root, uri, model):
            if base not in bases:
                bases.add(base)
                rows, fault = (None, result) if isinstance(result, str) else (result, None)
                yield TrainingRows(f"{base}, a base of {model.uri},", rows, fault, by, inherited=True)
    before = [entry for entry in references.before if references.best_champion is None or entry.key != references.best_champion.key]
    if before:
        yield from _rows_of_entries(workspace, "earlier champions ({})", before, known, "earlier")


def _rows_of_entries(
    workspace: Workspace, display_name: str, entries: Sequence[Entry], known: Mapping[str, registry.Version], by: By
) -> Iterator[TrainingRows]:
    """Yield the training rows of these entries as one table without duplicates; each snapshot is read once."""
    tables: dict[str, pd.DataFrame] = {}
    numbers = []
    for entry in entries:
        try:
            version = known.get(entry.key)
            if version is None:
                raise NotFound("it was deleted from the registry")
            digest = _input_hash(version, LEARN)
            if digest not in tables:
                tables[digest] = rows_learned_by(workspace.root, version)
            numbers.append(str(version.number))
        except NotFound as error:
            log.warning("the training rows of version %d are not available: %s", entry.version, error)
            # A deleted version is not compared.
            yield TrainingRows(f"version {entry.version}", None, str(error), by if entry.key in known else "earlier")
    if tables:
        distinct = pd.concat(list(tables.values()), ignore_index=True).drop_duplicates(["text", "label"], ignore_index=True)
        yield TrainingRows(display_name.format(", ".join(numbers)), distinct, None, by)


def inherited(root: Path, uri: str, version: registry.Version) -> Iterator[tuple[str, pd.DataFrame | str]]:
    """Yield each version that a version was fine-tuned from, as models:/NAME/NUMBER with its training rows or why they are missing."""
    visited = {version.uri}
    while (base := version.tags.get(registry.BASE_SOURCE, "")).startswith(REGISTERED) and base not in visited:
        visited.add(base)
        name, _, number = base.removeprefix(REGISTERED).rpartition("/")
        parent = next((other for other in registry.versions(uri, name) if str(other.number) == number), None)
        if parent is None:
            yield base, "it was deleted from the registry"
            return
        version = parent
        try:
            yield base, rows_learned_by(root, version)
        except NotFound as error:
            yield base, str(error)


def rows_learned_by(root: Path, version: registry.Version) -> pd.DataFrame:
    """Return the rows (id, text, label) that a version was trained and validated on; see `cached_rows` for errors."""
    tables = [cached_rows(root, version, LEARN, f"{split}.parquet") for split in ("train", "validation")]
    return pd.concat([rows[["id", "text", "label"]] for rows in tables], ignore_index=True)


def cached_rows(root: Path, version: registry.Version, folder: str, name: str) -> pd.DataFrame:
    """Return a table that the stages wrote when a version was built.

    Raises:
        NotFound: DVC's cache does not have it.
    """
    return read_rows(cached_file(root, _input_hash(version, folder), name))


def _input_hash(version: registry.Version, folder: str) -> str:
    with suppress(ValueError, AttributeError, KeyError):
        return str(json.loads(version.tags["retune.dvc_lock"])[folder])
    raise NotFound(f"version {version.number} has no recorded hash of {folder}")


def row_keys(rows: pd.DataFrame) -> list[str]:
    """Return the keys by which the ledger identifies test rows."""
    return [row_key(str(text)) for text in rows["text"]]


def check_splits(workspace: Workspace, uri: str, params: Params) -> None:
    """Check that rows keep their splits if the newest version was split by id.

    Raises:
        BadParams: rows would move, since preprocess.split_by is not set; the message names both values.
    """
    if "split_by" in params.preprocess.model_fields_set:
        return
    versions = [version for version in registry.versions(uri, params.name) if version.complete]
    newest = max(versions, key=lambda version: version.number, default=None)
    try:
        if newest is None or Profile.read(artifact_access.artifact(uri, newest, "data/profile.json").parent).split_by not in (None, "id"):
            return
        rows = cached_rows(workspace.root, newest, TEST, "test.parquet")
        if grouped(rows["id"], rows["group"]) or rows["group"].tolist() == [text_key(text) for text in rows["text"]]:
            return
    except NotFound as error:
        log.warning("set preprocess.split_by: could not check whether its default moves rows between splits: %s", error)
        return
    raise BadParams(
        f"params.yaml: preprocess.split_by is not set, and version {newest.number} was split by id; the default, text, would move some of "
        "its training rows to the test set. Set split_by: id to keep the splits, or split_by: text to start a new test set, on which "
        "comparisons with earlier versions are INCONCLUSIVE"
    )


def earlier_tests(
    workspace: Workspace,
    sessions: ModelSessions,
    version: registry.Version,
    champion: registry.Version | None,
    known: dict[str, registry.Version],
    params: Params,
    test_digest: str,
    learnt: pd.DataFrame,
    others: Sequence[TrainingRows] = (),
) -> Iterator[PastTestSet]:
    """Yield predictions of candidate and champion on the newest earlier test sets and the regression sets; nothing without a champion.

    Rows that equal or nearly equal a training row of either model are left out. `learnt` are the candidate's training rows, `others` those
    of `training_rows`.
    """
    if champion is None:
        return
    sets = _past(workspace, version, known, params, test_digest)
    regression_sets = settings_of(params.gates, PastTestSettings)[1].sets
    sets += [(f"regression set {path}", partial(read_set, workspace, params, path)) for path in regression_sets]
    compared = [rows for rows in others if rows.by in ("candidate", "champion")]
    if faults := [rows.fault for rows in compared if rows.rows is None and not rows.inherited]:
        yield from (PastTestSet(name, fault=f"the training rows of the champion are unknown: {faults[0]}") for name, _ in sets)
        return
    labels = Predictions.read(workspace.predictions / "candidate.parquet").labels or None
    tables: dict[str, pd.DataFrame] = {}
    for name, read in sets:
        try:
            tables[name] = read()
        except RetuneError as error:
            yield PastTestSet(name, fault=str(error))
    texts = sorted({str(text) for rows in tables.values() for text in rows["text"]})
    trained = [str(text) for rows in (learnt, *(other.rows for other in compared if other.rows is not None)) for text in rows["text"]]
    threshold = settings_of(params.gates, OverlapSettings)[1].near_duplicate
    known_texts = {texts[index] for index in np.flatnonzero(similar_pairs(texts, trained, threshold))}
    for name, table in tables.items():
        try:
            rows, left_out = prepare_earlier(table, table["text"].isin(known_texts).to_numpy(dtype=np.bool_), labels)
            if len(rows):
                yield PastTestSet(name, sessions.predict(version, rows), sessions.predict(champion, rows), left_out=left_out)
            else:
                yield PastTestSet(name, left_out=left_out)
        except RetuneError as error:
            yield PastTestSet(name, fault=str(error))


def _past(
    workspace: Workspace, version: registry.Version, known: dict[str, registry.Version], params: Params, test_digest: str
) -> list[tuple[str, Callable[[], pd.DataFrame]]]:
    """Return names and readers of the newest test sets of earlier versions, without the current one."""
    newest: dict[str, registry.Version] = {}
    for other in sorted(known.values(), key=lambda version: -version.number):
        digest = other.tags.get("retune.test_digest", test_digest)
        if digest != test_digest and other.key != version.key:
            newest.setdefault(digest, other)
    return [
        (f"test set {digest[:8]} of version {other.number}", partial(cached_rows, workspace.root, other, TEST, "test.parquet"))
        for digest, other in list(newest.items())[: settings_of(params.gates, PastTestSettings)[1].last]
    ]


def read_set(workspace: Workspace, params: Params, path: str) -> pd.DataFrame:
    """Return the labelled rows of a file that the settings name, read like the data; a row without an id gets its number."""
    with temporary() as folder:
        settings = params.snapshot.at(path).model_copy(update={"split_column": None, "split_files": False})
        take_snapshot(workspace.origin, folder / "set", snapshot=settings, required=params.made_task.columns)
        rows = read_snapshot(folder / "set").dropna(subset=list(params.made_task.columns)).reset_index(drop=True)
    task, label = params.made_task, label_reader(params.validation.label_map)
    if task.label_column:
        rows = rows.assign(**{task.label_column: [task.rename_labels(cell, label) for cell in rows[task.label_column]]})
    rows, bad = task.read(rows)
    rows = rows.drop(index=list(bad)).reset_index(drop=True)
    numbers = pd.Series([f"row {number}" for number in range(len(rows))], dtype="str")
    ids = rows["id"].fillna(numbers) if "id" in rows else numbers
    return rows.assign(id=ids, group=rows["group"].fillna(ids) if "group" in rows else ids)
