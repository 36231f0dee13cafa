"""Compare two versions on the newer one's test set: metrics, individual predictions, settings, data.

Reads the runs' artifacts and DVC's cache. Scores the older version with its own package and caches its predictions in var/predictions.
"""

import contextlib
from collections.abc import Mapping

import numpy as np
import pandas as pd
from pydantic import BaseModel

from components.artifacts.manifest import SnapshotManifest
from components.artifacts.metrics import Estimate
from components.artifacts.predictions import Predictions
from components.core.documents import flatten
from components.core.errors import BadModel, NotFound, RetuneError
from components.core.similarity import similar_pairs
from components.evaluation.metric_set import metric_set
from components.mlflow_store import registry
from components.mlflow_store.registry import artifact_access
from components.model import tasks
from components.report.error_analysis import AnswerChange, changes
from components.stats.metric_sets import MetricSet
from flows.audit.registered_model import RegisteredModel
from flows.pipeline.historical_data import TEST, cached_rows, inherited, rows_learned_by
from flows.pipeline.model_sessions import ModelSessions
from flows.project.workspace import Workspace

MIN_CLASS_UNITS = 10  # default if a run does not record it
NEAR = 0.8  # default similarity of a near duplicate


class Scores(BaseModel, frozen=True):
    """Both versions on the same rows. `differences` are after minus before, paired; labels of one version only are in `labels_only_…`.

    `left_out` counts the excluded test rows that either version was trained on, exactly or as a near duplicate.
    """

    rows: int
    left_out: int = 0
    test_digest: str
    before: dict[str, Estimate]
    after: dict[str, Estimate]
    differences: dict[str, Estimate]
    fixed: tuple[AnswerChange, ...]
    broken: tuple[AnswerChange, ...]
    both_right: int
    both_wrong: int
    labels_only_before: tuple[str, ...]
    labels_only_after: tuple[str, ...]


class Data(BaseModel, frozen=True):
    """Both snapshots. The lists contain ids of rows that passed validation; None if DVC's cache lacks a side, with the reason in `lost`."""

    before: dict[str, str | int]
    after: dict[str, str | int]
    added: tuple[str, ...] | None = None
    removed: tuple[str, ...] | None = None
    reworded: tuple[str, ...] | None = None
    relabelled: tuple[str, ...] | None = None
    lost: str | None = None


class Diff(BaseModel, frozen=True):
    """The changes from version `before` to `after`; `scores` is None if they could not be compared, with the reason in `lost`."""

    model: str
    before: int
    after: int
    scores: Scores | None
    lost: str | None
    params: dict[str, tuple[object, object]]
    data: Data


def diff(model: RegisteredModel, before: int, after: int) -> Diff:
    """Compare two versions.

    Raises:
        NotFound: the version does not exist or was not registered by Retune.
    """
    old, new = model.version(before), model.version(after)
    scores, lost = None, None
    try:
        scores = compare_answers(model, old, new)
    except (NotFound, BadModel) as error:  # the rest of the comparison is still useful
        lost = str(error)
    return Diff(
        model=model.name,
        before=before,
        after=after,
        scores=scores,
        lost=lost,
        params=changed(read_params(model, old), read_params(model, new)),
        data=compare_data(model, old, new),
    )


def compare_answers(model: RegisteredModel, old: registry.Version, new: registry.Version) -> Scores:
    """Return both versions' scores on the new one's test set, without rows that either version or one of its bases was trained on.

    Raises:
        NotFound: the test rows, the new version's predictions or the training rows of either are missing, or no row remains.
        BadModel: the old version cannot be loaded or scored.
    """
    rows = cached_rows(model.project, new, TEST, "test.parquet")
    params = artifact_access.read_json(model.uri, new, "params.json")
    threshold = params.get("gates", {}).get("leakage", {}).get("near_duplicate", NEAR)
    trained_on = [text for version in (old, new) for text in training_texts(model, version)]
    fresh = ~similar_pairs(rows["text"].tolist(), trained_on, threshold)
    if not fresh.any():
        raise NotFound(
            f"all {len(rows):,} test rows are in the training data of version {old.number} or {new.number}: no row is left to compare"
        )
    digest = new.tags.get("retune.test_digest", "")
    candidate = Predictions.read(artifact_access.artifact(model.uri, new, "evaluation/predictions/candidate.parquet"))
    task = tasks.load(str(params.get("task", "text_classification")), params.get("task_options"))
    units = params.get("evaluate", {}).get("min_class_units", MIN_CLASS_UNITS)
    workspace = Workspace(model.project, model.project, model.project / "params.yaml")
    with ModelSessions(workspace, model.uri, task, params.get("validate", {}).get("label_map")) as sessions:
        scored, candidate = sessions.predictions(old, rows, digest), sessions.renamed(candidate)
    old_answers, answers = (side.take(np.isin(side.ids, rows["id"][fresh].tolist())) for side in (scored, candidate))
    metrics = metric_set(task, answers, int(units))
    scores = measure(old_answers, answers, dict(zip(rows["id"], rows["text"], strict=True)), metrics, digest)
    return scores.model_copy(update={"left_out": int((~fresh).sum())})


def training_texts(model: RegisteredModel, version: registry.Version) -> list[str]:
    """Return the training and validation texts of a version, and the available ones of the versions that it was fine-tuned from."""
    bases = [rows for _, rows in inherited(model.project, model.uri, version) if not isinstance(rows, str)]
    return [text for rows in (rows_learned_by(model.project, version), *bases) for text in rows["text"]]


def measure(old: Predictions, new: Predictions, texts: Mapping[str, str], metrics: MetricSet, test_digest: str) -> Scores:
    """Score two models' predictions on the same rows; pure."""
    answers = changes(new, old, texts)
    return Scores(
        rows=answers.rows,
        test_digest=test_digest,
        before={metric: metrics.score(metric, old) for metric in metrics.shown},
        after={metric: metrics.score(metric, new) for metric in metrics.shown},
        differences={metric: metrics.difference(metric, new, old) for metric in metrics.metrics},
        fixed=answers.fixed,
        broken=answers.broken,
        both_right=answers.both_right,
        both_wrong=answers.both_wrong,
        labels_only_before=tuple(sorted(set(old.labels) - set(new.labels))),
        labels_only_after=tuple(sorted(set(new.labels) - set(old.labels))),
    )


def changed(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """Return the names whose values differ, with both values (None if absent)."""
    names = [*before, *(name for name in after if name not in before)]
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def read_params(model: RegisteredModel, version: registry.Version) -> dict[str, object]:
    """Return a version's settings by dotted name, with the tuned ones as `tuned.NAME`; empty if its run is missing."""
    try:
        chosen = artifact_access.read_json(model.uri, version, "search/best.json").get("settings", {})
        return {
            **flatten(artifact_access.read_json(model.uri, version, "params.json")),
            **{f"tuned.{name}": value for name, value in chosen.items()},
        }
    except NotFound:
        return {}


def compare_data(model: RegisteredModel, old: registry.Version, new: registry.Version) -> Data:
    """Return both snapshots and, if DVC's cache still has them, the rows that were added, removed or changed."""
    sides = {"before": describe_data(model, old), "after": describe_data(model, new)}
    try:
        validated = [cached_rows(model.project, version, "data/validated", "kept.parquet") for version in (old, new)]
        return Data(**sides, **compare_rows(*validated))
    except RetuneError as error:
        return Data(**sides, lost=str(error))


def compare_rows(old: pd.DataFrame, new: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return the ids of added and removed rows, and of rows whose text or label differs; pure."""
    before, after = old.set_index("id"), new.set_index("id")
    both = after.index.intersection(before.index)
    ids = {"added": after.index.difference(before.index), "removed": before.index.difference(after.index)}
    for name, column in (("reworded", "text"), ("relabelled", "label")):
        if column in before and column in after:
            old_cells, new_cells = (side.loc[both, column].fillna("") for side in (before, after))
            ids[name] = both[(old_cells != new_cells).to_numpy()]
    return {name: tuple(sorted(map(str, index))) for name, index in ids.items()}


def describe_data(model: RegisteredModel, version: registry.Version) -> dict[str, str | int]:
    """Return a version's snapshot: its digest and, from the run, source, rows and time."""
    described: dict[str, str | int] = {"digest": version.tags.get("retune.data_digest", "")}
    with contextlib.suppress(NotFound):
        manifest = read_manifest(model, version)
        described |= {"source": manifest.source, "rows": manifest.rows, "taken_at": manifest.taken_at}
    return described


def read_manifest(model: RegisteredModel, version: registry.Version) -> SnapshotManifest:
    """Return the manifest of a version's snapshot."""
    return SnapshotManifest.read(artifact_access.artifact(model.uri, version, "data/manifest.json").parent)
