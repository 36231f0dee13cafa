"""The data of the past: what earlier champions learnt from, and earlier test sets, out of DVC's cache; and regression sets."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
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
from components.gates import TrainingRows
from components.ledger import Entry
from components.mlflow_store import registry
from components.mlflow_store.registry import artifact_access
from components.model.base_resolver import REGISTERED
from flows.dvc_adapter import repro
from flows.pipeline.model_sessions import ModelSessions
from flows.pipeline.reference_models import ReferenceModels
from flows.project.params import Params
from flows.project.workspace import Workspace

log = logging.getLogger(__name__)
LEARN, TEST = "data/prepared/learn", "data/prepared/test"
By = Literal["candidate", "champion", "best_champion", "earlier"]


def training_rows(
    workspace: Workspace, uri: str, version: registry.Version, rivals: ReferenceModels, known: Mapping[str, registry.Version]
) -> Iterator[TrainingRows]:
    """Yield what champion and best champion so far learnt from, what each compared model inherits, and what all earlier champions learnt.

    A model inherits what the registered versions learnt that it was fine-tuned from. Where rows are not at hand, the fault is yielded.
    """
    compared: list[tuple[By, str, Entry | None]] = [
        ("champion", "champion version {}", rivals.champion),
        ("best_champion", "the best champion so far, version {},", rivals.anchor),
    ]
    made: list[tuple[By, registry.Version]] = [("candidate", version)]
    for by, called, entry in compared:
        if entry is not None:
            yield from _seen(workspace, called, [entry], known, by)
            made += [(by, known[entry.key])] if entry.key in known else []
    told: set[str] = set()
    for by, model in made:
        for base, found in inherited(workspace, uri, model):
            if base not in told:
                told.add(base)
                rows, fault = (None, found) if isinstance(found, str) else (found, None)
                yield TrainingRows(f"{base}, a base of {model.uri},", rows, fault, by, inherited=True)
    before = [entry for entry in rivals.before if rivals.anchor is None or entry.key != rivals.anchor.key]
    if before:
        yield from _seen(workspace, "earlier champions ({})", before, known, "earlier")


def _seen(
    workspace: Workspace, called: str, entries: Sequence[Entry], known: Mapping[str, registry.Version], by: By
) -> Iterator[TrainingRows]:
    """Yield the rows that any of these learnt from as one table, each text once with each label; snapshots alike are read once."""
    tables: dict[str, pd.DataFrame] = {}
    numbers = []
    for entry in entries:
        try:
            version = known.get(entry.key)
            if version is None:
                raise NotFound("it was deleted from the registry")
            digest = _made_with(version, LEARN)
            if digest not in tables:
                tables[digest] = rows_learned_by(workspace, version)
            numbers.append(str(version.number))
        except NotFound as error:
            log.warning("what version %d learnt from is not at hand: %s", entry.version, error)
            yield TrainingRows(
                f"version {entry.version}", None, str(error), by if entry.key in known else "earlier"
            )  # who is gone is not compared
    if tables:
        yield TrainingRows(called.format(", ".join(numbers)), _distinct(list(tables.values())), None, by)


def _distinct(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True).drop_duplicates(["text", "label"], ignore_index=True)


def inherited(workspace: Workspace, uri: str, version: registry.Version) -> Iterator[tuple[str, pd.DataFrame | str]]:
    """Yield each registered version that a version was fine-tuned from, by models:/NAME/NUMBER: what it learnt, or why that is unknown."""
    told = {version.uri}
    while (base := version.tags.get(registry.BASE_SOURCE, "")).startswith(REGISTERED) and base not in told:
        told.add(base)
        name, _, number = base.removeprefix(REGISTERED).rpartition("/")
        found = next((one for one in registry.versions(uri, name) if str(one.number) == number), None)
        if found is None:
            yield base, "it was deleted from the registry"
            return
        version = found
        try:
            yield base, rows_learned_by(workspace, version)
        except NotFound as error:
            yield base, str(error)


def rows_learned_by(workspace: Workspace, version: registry.Version) -> pd.DataFrame:
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
    return read_rows(repro.cached_file(workspace.root, _made_with(version, folder), name))


def _made_with(version: registry.Version, folder: str) -> str:
    digest: str | None = json.loads(version.tags.get("retune.dvc_lock", "{}")).get(folder)
    if digest is None:
        raise NotFound(f"version {version.number} does not say which {folder} it was made with")
    return digest


def row_keys(rows: pd.DataFrame) -> list[str]:
    """Return the keys by which the ledger knows test rows again."""
    return [row_key(str(text)) for text in rows["text"]]


def check_splits(workspace: Workspace, uri: str, params: Params) -> None:
    """Check that rows stay in their splits where those of the newest version followed from ids, by an earlier release or by the setting.

    Raises:
        BadParams: they would move, as preprocess.split_by is not set; the message names both values.
    """
    if "split_by" in params.preprocess.model_fields_set:
        return
    newest = max((one for one in registry.versions(uri, params.name) if one.complete), key=lambda one: one.number, default=None)
    try:
        if newest is None or Profile.read(artifact_access.artifact(uri, newest, "data/profile.json").parent).split_by not in (None, "id"):
            return
        rows = cached_rows(workspace, newest, TEST, "test.parquet")
        if grouped(rows["id"], rows["group"]) or rows["group"].tolist() == [text_key(text) for text in rows["text"]]:
            return
    except NotFound as error:
        log.warning("whether preprocess.split_by moves rows between splits cannot be told (%s): set it", error)
        return
    raise BadParams(
        f"params.yaml: preprocess.split_by is not set, and version {newest.number} was made when the split of a row without a group "
        "followed from its id; the default, text, would make rows that it has learnt test rows. Set split_by: id to keep the splits, or "
        "split_by: text to start a new test set, on which comparisons with earlier versions are INCONCLUSIVE"
    )


def earlier_tests(
    workspace: Workspace,
    asked: ModelSessions,
    version: registry.Version,
    champion: registry.Version | None,
    known: dict[str, registry.Version],
    params: Params,
    test_digest: str,
    learnt: pd.DataFrame,
    others: Sequence[TrainingRows] = (),
) -> Iterator[PastTestSet]:
    """Ask candidate and champion about the newest earlier test sets and the regression sets; without a champion nothing is forgotten.

    Rows that either of them learnt, word for word or nearly, are left out: they would favour it. `learnt` are the candidate's, `others`
    what `training_rows` yields.
    """
    if champion is None:
        return
    sets = [*_past(workspace, version, known, params, test_digest), *_regression_sets(workspace, params)]
    theirs = [one for one in others if one.by in ("candidate", "champion")]
    if faults := [one.fault for one in theirs if one.rows is None and not one.inherited]:
        yield from (PastTestSet(name, fault=f"which rows are new to the champion cannot be told: {faults[0]}") for name, _ in sets)
        return
    labels = Predictions.read(workspace.predictions / "candidate.parquet").labels or None
    tables: dict[str, pd.DataFrame] = {}
    for name, read in sets:
        try:
            tables[name] = read()
        except RetuneError as error:
            yield PastTestSet(name, fault=str(error))
    texts = sorted({str(text) for rows in tables.values() for text in rows["text"]})
    trained = [str(text) for rows in (learnt, *(one.rows for one in theirs if one.rows is not None)) for text in rows["text"]]
    taught = {texts[place] for place in np.flatnonzero(similar_pairs(texts, trained, params.gates.leakage.near_duplicate))}
    for name, table in tables.items():
        try:
            rows, left_out = prepare_earlier(table, table["text"].isin(taught).to_numpy(dtype=np.bool_), labels)
            mine, other = ([asked.about(one, rows) for one in (version, champion)]) if len(rows) else (None, None)
            yield PastTestSet(name, mine, other, left_out=left_out)
        except RetuneError as error:
            yield PastTestSet(name, fault=str(error))


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
        (f"test set {digest[:8]} of version {one.number}", partial(cached_rows, workspace, one, TEST, "test.parquet"))
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
    task, label = params.made_task, label_reader(params.validation.label_map)
    if task.label_column:
        rows = rows.assign(**{task.label_column: [task.rename_labels(cell, label) for cell in rows[task.label_column]]})
    rows, bad = task.read(rows)
    rows = rows.drop(index=list(bad)).reset_index(drop=True)
    numbers = pd.Series([f"row {place}" for place in range(len(rows))], dtype="str")
    ids = rows["id"].fillna(numbers) if "id" in rows else numbers
    return rows.assign(id=ids, group=rows["group"].fillna(ids) if "group" in rows else ids)
