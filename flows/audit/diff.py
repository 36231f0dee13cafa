"""Two versions side by side on the newer one's test set: metrics, single answers, settings, data.

Reads the runs' artifacts and DVC's cache; asks the older version by its own package, and keeps its answers in var/predictions.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict

from components.artifacts.manifest import SnapshotManifest
from components.artifacts.metrics import Estimate
from components.artifacts.predictions import Predictions, relabelled
from components.artifacts.rows import read_rows
from components.core.errors import BadModel, NotFound, RetuneError
from components.core.similarity import similar_pairs
from components.core.text import label_reader
from components.evaluation.metric_set import metric_set
from components.mlflow_store import registry
from components.mlflow_store.registry import artifact_access
from components.mlflow_store.tracking.facts import flatten
from components.model import tasks
from components.model.base_resolver import REGISTERED
from components.stats import MetricSet
from flows.audit.registered_model import RegisteredModel
from flows.dvc_adapter.repro import cached_file

MIN_CLASS_UNITS = 10  # where a run does not say
NEAR = 0.8  # likewise: the similarity of a near copy


class Frozen(BaseModel):
    """A record that is printed."""

    model_config = ConfigDict(frozen=True)


class Answer(Frozen):
    """A row on which exactly one of the two is right; `before` and `after` are what they said."""

    id: str
    text: str | None
    expected: str
    before: str
    after: str


class Scores(Frozen):
    """Both on the same rows. `differences` are after minus before, paired; what is only one's own is in `labels_only_…`.

    `left_out` counts the test rows that either has learnt, word for word or nearly.
    """

    rows: int
    left_out: int = 0
    test_digest: str
    before: dict[str, Estimate]
    after: dict[str, Estimate]
    differences: dict[str, Estimate]
    fixed: tuple[Answer, ...]
    broken: tuple[Answer, ...]
    both_right: int
    both_wrong: int
    labels_only_before: tuple[str, ...]
    labels_only_after: tuple[str, ...]


class Data(Frozen):
    """Both snapshots. The lists hold ids of rows that passed validation; None where DVC's cache has lost a side, and `lost` says why."""

    before: dict[str, str | int]
    after: dict[str, str | int]
    added: tuple[str, ...] | None = None
    removed: tuple[str, ...] | None = None
    reworded: tuple[str, ...] | None = None
    relabelled: tuple[str, ...] | None = None
    lost: str | None = None


class Diff(Frozen):
    """What changed from version `before` to version `after`; `scores` is None where they could not be compared, `lost` says why."""

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
        NotThere: no such version, or it was not registered by Retune.
    """
    old, new = model.version(before), model.version(after)
    scores, lost = None, None
    try:
        scores = compare_answers(model, old, new)
    except (NotFound, BadModel) as error:  # the rest is worth reading without it
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
    """Return both versions' scores on the new one's test set, without the rows that either, or a base of it, has learnt.

    Raises:
        NotThere: the test rows, the new version's predictions or what either has learnt are gone, or no row is left.
        BadModel: the old version cannot be asked.
    """
    rows = read_rows(cached_file(model.project, model.hash_of(new, "data/prepared/test"), "test.parquet"))
    params = read_json(model, new, "params.json")
    threshold = params.get("gates", {}).get("leakage", {}).get("near_duplicate", NEAR)
    taught = [text for version in (old, new) for text in (*learnt_texts(model, version), *inherited_texts(model, version))]
    fresh = ~similar_pairs(rows["text"].tolist(), taught, threshold)
    if not fresh.any():
        raise NotFound(
            f"version {old.number} or {new.number} has learnt each of the {len(rows):,} test rows, so none is left to compare on"
        )
    digest = new.tags.get("retune.test_digest", "")
    candidate = Predictions.read(artifact_access.artifact(model.uri, new, "evaluation/predictions/candidate.parquet"))
    cache = model.project / "var/predictions" / model.name / f"{old.key[:32]}-{digest[:32]}.parquet"
    scored = registry.score_version(model.uri, model.name, old.number, rows, cache)
    task = tasks.load(str(params.get("task", "text_classification")), params.get("task_options"))
    units = params.get("evaluate", {}).get("min_class_units", MIN_CLASS_UNITS)
    label = label_reader(params.get("validate", {}).get("label_map", {}))
    if task.label_column:
        scored, candidate = (relabelled(one, label, lambda answer: task.rename_labels(answer, label)) for one in (scored, candidate))
    old_answers, answers = (one.take(np.isin(one.ids, rows["id"][fresh].tolist())) for one in (scored, candidate))
    measured = metric_set(task, answers, int(units))
    found = measure(old_answers, answers, dict(zip(rows["id"], rows["text"], strict=True)), measured, digest)
    return found.model_copy(update={"left_out": int((~fresh).sum())})


def learnt_texts(model: RegisteredModel, version: registry.Version) -> list[str]:
    """Return the texts that a version was trained and validated on."""
    learn = model.hash_of(version, "data/prepared/learn")
    return [text for split in ("train", "validation") for text in read_rows(cached_file(model.project, learn, f"{split}.parquet"))["text"]]


def inherited_texts(model: RegisteredModel, version: registry.Version) -> Iterator[str]:
    """Yield the texts that the registered versions learnt which a version was fine-tuned from, as far as they are at hand."""
    told = {version.uri}
    while (base := version.tags.get(registry.BASE_SOURCE, "")).startswith(REGISTERED) and base not in told:
        told.add(base)
        name, _, number = base.removeprefix(REGISTERED).rpartition("/")
        found = next((one for one in registry.versions(model.uri, name) if str(one.number) == number), None)
        if found is None:
            return
        version = found
        with contextlib.suppress(NotFound):
            yield from learnt_texts(model, version)


def measure(old: Predictions, new: Predictions, texts: Mapping[str, str], yardstick: MetricSet, test_digest: str) -> Scores:
    """Measure two models' answers to the same rows; pure."""
    pairs = list(zip(new.ids.tolist(), new.expected.tolist(), old.predicted.tolist(), new.predicted.tolist(), strict=True))
    rows = [Answer(id=row, text=texts.get(row), expected=right, before=was, after=now) for row, right, was, now in pairs]
    return Scores(
        rows=len(rows),
        test_digest=test_digest,
        before={metric: yardstick.score(metric, old) for metric in yardstick.shown},
        after={metric: yardstick.score(metric, new) for metric in yardstick.shown},
        differences={metric: yardstick.difference(metric, new, old) for metric in yardstick.metrics},
        fixed=tuple(row for row in rows if row.after == row.expected != row.before),
        broken=tuple(row for row in rows if row.before == row.expected != row.after),
        both_right=sum(row.before == row.expected == row.after for row in rows),
        both_wrong=sum(row.expected not in (row.before, row.after) for row in rows),
        labels_only_before=tuple(sorted(set(old.labels) - set(new.labels))),
        labels_only_after=tuple(sorted(set(new.labels) - set(old.labels))),
    )


def changed(before: Mapping[str, object], after: Mapping[str, object]) -> dict[str, tuple[object, object]]:
    """Return the names whose values differ, with both values; None where there was none."""
    names = [*before, *(name for name in after if name not in before)]
    return {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}


def read_params(model: RegisteredModel, version: registry.Version) -> dict[str, object]:
    """Return the settings of a version with dotted names, and what the search chose as `tuned.NAME`; empty where the run is gone."""
    try:
        chosen = read_json(model, version, "search/best.json").get("settings", {})
        return {**flatten(read_json(model, version, "params.json")), **{f"tuned.{name}": value for name, value in chosen.items()}}
    except NotFound:
        return {}


def read_json(model: RegisteredModel, version: registry.Version, path: str) -> dict[str, Any]:
    """Return a JSON artifact of a version's run."""
    found: dict[str, Any] = json.loads(artifact_access.artifact(model.uri, version, path).read_text(encoding="utf-8"))
    return found


def compare_data(model: RegisteredModel, old: registry.Version, new: registry.Version) -> Data:
    """Return both snapshots, and the rows that only one has or that differ, as far as DVC's cache still has them."""
    sides = {"before": describe_data(model, old), "after": describe_data(model, new)}
    try:
        return Data(**sides, **compare_rows(*(read_kept(model, version) for version in (old, new))))
    except RetuneError as error:
        return Data(**sides, lost=str(error))


def compare_rows(old: pd.DataFrame, new: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Return the ids that only one has, and those of both whose text or label differs; pure."""
    before, after = old.set_index("id"), new.set_index("id")
    both = after.index.intersection(before.index)
    columns = {"reworded": "text", "relabelled": "label"}
    found = {name: both[differing(before, after, both, column)] for name, column in columns.items() if column in before and column in after}
    found |= {"added": after.index.difference(before.index), "removed": before.index.difference(after.index)}
    return {name: tuple(sorted(map(str, ids))) for name, ids in found.items()}


def differing(before: pd.DataFrame, after: pd.DataFrame, ids: "pd.Index[str]", column: str) -> npt.NDArray[np.bool_]:
    """Return for each of `ids` whether its cell differs between the two."""
    return np.asarray(before.loc[ids, column].fillna("").to_numpy() != after.loc[ids, column].fillna("").to_numpy(), dtype=np.bool_)


def read_kept(model: RegisteredModel, version: registry.Version) -> pd.DataFrame:
    """Return the rows that passed validation for a version."""
    return read_rows(cached_file(model.project, model.hash_of(version, "data/validated"), "kept.parquet"))


def describe_data(model: RegisteredModel, version: registry.Version) -> dict[str, str | int]:
    """Return a version's snapshot: its digest, and from the run its source, rows and time."""
    digest = version.tags.get("retune.data_digest", "")
    try:
        manifest = SnapshotManifest.read(Path(artifact_access.artifact(model.uri, version, "data/manifest.json")).parent)
    except NotFound:
        return {"digest": digest}
    return {"digest": digest, "source": manifest.source, "rows": manifest.rows, "taken_at": manifest.taken_at}
