"""A candidate into MLflow: one parent run, a child a stage and a trial; idempotent by what the candidate is.

Reads the stages' outputs below the workspace, params.yaml and dvc.lock; writes runs and their artifacts.
"""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

from components.artifacts.lineage import Lineage
from components.artifacts.manifest import SnapshotManifest
from components.artifacts.metrics import Metrics
from components.artifacts.profile import Profile
from components.core.errors import NotFound
from components.core.hashing import digest_file, digest_folder, digest_value
from components.core.temporary import temporary
from components.mlflow_store.connection import (
    alone,
    connect,
    experiment,
    key,
    log_all,
    metrics_of,
    milliseconds,
    params_of,
    reaching,
    tags_of,
    upload,
)
from components.mlflow_store.tracking import rows, runs
from components.mlflow_store.tracking.facts import (
    Point,
    RunFacts,
    TrialRecord,
    flatten,
    headline,
    read_lines,
    read_points,
    read_trials,
    stage_facts,
    started_at,
)

log = logging.getLogger(__name__)

# file or folder in the workspace: folder among the artifacts
KEPT = {
    "reports/evaluation": "evaluation",
    "data/validated/report.json": "data",
    "data/prepared/profile.json": "data",
    "data/raw/manifest.json": "data",
    "models/tuned": "search",
    "models/trained/training.json": "training",
    "models/trained/history.jsonl": "training",
    "dvc.lock": "",
    "dvc.yaml": "",
    "params.yaml": "",
}
HISTORY = Path("models/trained/history.jsonl")
_DIFF_BYTES = 5_000_000
_LIVE_RUNS = 5  # the newest that nobody adopted, of which one may have followed this training
ATTACHED = "retune.attached"  # the digest of the files that were added after a run was recorded
_ENDED = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED", "FAILED": "FAILED", "RUNNING": "KILLED", "WAITING": "KILLED"}


@dataclass(frozen=True)
class RecordedRun:
    """The parent run of a candidate; `created` is false when an earlier call had recorded it."""

    run_id: str
    key: str
    created: bool


def run_key(workspace: Path) -> str:
    """Return the identity of the candidate: model folder (weights, tokenizer, spec), raw data, and test set.

    Raises:
        NotThere: no model was trained or evaluated here, or the evaluation is of another model or snapshot than lies here.
    """
    model, raw = workspace / "models/trained/model", workspace / "data/raw"
    if not model.is_dir():
        raise NotFound(f"{model} is missing: `dvc repro train` writes it")
    metrics = Metrics.read(workspace / "reports/evaluation")
    # A step alone (`dvc repro train`), a run cut short or a snapshot that was rejected leaves files of two generations.
    if metrics.model_digest != digest_folder(model):
        raise NotFound(f"the evaluation is of another model than {model}: run `dvc repro`")
    if metrics.snapshot != SnapshotManifest.read(raw).digest:
        raise NotFound(f"the evaluation is of another snapshot than {raw}: run `dvc repro`")
    return digest_value({"model": metrics.model_digest, "data": metrics.snapshot, "test": metrics.test_digest})


def record(
    workspace: Path,
    uri: str,
    *,
    lineage: Lineage,
    params: Mapping[str, object],
    live: str | None = None,
    uncommitted: Callable[[], bytes] = bytes,
) -> RecordedRun:
    """Put the workspace's candidate into MLflow once; the run that `follow` fed becomes the train child.

    `live` names that run where the caller knows it; otherwise the newest one that holds the beginning of this history. `uncommitted`
    returns the changes of the code that no commit has, for a lineage that counts some; 5 MB of them are kept.

    A run that an earlier, killed call left incomplete is replaced. The tag `retune.complete` is set last.

    Raises:
        NotThere: a stage has not run.
        Unavailable: the store is busy, or what it holds after the upload is not what was sent.
    """
    identity = run_key(workspace)
    facts = stage_facts(workspace)
    with reaching(uri), alone(uri, f"record {identity}"):
        client = connect(uri)
        place = experiment(client, uri, lineage.model)
        found = runs.candidates(client, place, identity)
        if found and found[0].data.tags.get(runs.COMPLETE) == "true":
            log.info("recorded before as run %s", found[0].info.run_id)
            return RecordedRun(found[0].info.run_id, identity, created=False)
        for torn in found:
            log.warning("run %s of the same candidate is incomplete: replaced", torn.info.run_id)
            runs.remove(client, torn)
        tags = {runs.KEY: identity, **lineage_tags(lineage)}
        parent = runs.start(client, place, lineage.model, "candidate", tags)
        with runs.failing(client, parent):
            _fill_parent(client, parent, workspace, lineage, params, uncommitted)
            _add_stages(client, place, parent, workspace, facts, live)
        client.set_terminated(parent, "FINISHED")
        client.set_tag(parent, runs.COMPLETE, "true")
    log.info("recorded as run %s", parent)
    return RecordedRun(parent, identity, created=True)


def lineage_tags(lineage: Lineage) -> dict[str, object]:
    """Return the trail back to code, data and flow run as tags; `retune.dvc.PATH` is DVC's md5 of that output."""
    return {
        "mlflow.source.git.commit": lineage.git_commit,
        "retune.git_commit": lineage.git_commit,
        "retune.dirty": lineage.dirty,
        "retune.candidate": lineage.candidate,
        "retune.data_digest": lineage.data_digest,
        "retune.base_source": lineage.base_source,
        "retune.base_digest": lineage.base_digest,
        "retune.flow_run": lineage.flow_run,
        "retune.python": lineage.python,
        **{f"retune.dvc.{path}": md5 for path, md5 in lineage.hashes.items()},
    }


def _fill_parent(
    client: MlflowClient, run_id: str, workspace: Path, lineage: Lineage, params: Mapping[str, object], uncommitted: Callable[[], bytes]
) -> None:
    metrics = Metrics.read(workspace / "reports/evaluation")
    log_all(client, run_id, params=params_of(flatten(params)), metrics=metrics_of(headline(metrics)))
    client.log_inputs(run_id, _datasets(workspace, lineage))
    with temporary() as staged:
        _stage_files(staged, workspace, lineage, params)
        if lineage.dirty:
            (staged / "uncommitted.diff").write_bytes(uncommitted()[:_DIFF_BYTES])
        upload(client, run_id, staged)


def _stage_files(staged: Path, workspace: Path, lineage: Lineage, params: Mapping[str, object]) -> None:
    """Gather the artifacts of the parent run in one folder."""
    for source, folder in KEPT.items():
        path, target = workspace / source, staged / folder
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        elif path.exists():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    rows.write_rows(workspace, staged / "data")
    lineage.write(staged)
    (staged / "params.json").write_text(json.dumps(params, indent=2, default=str) + "\n", encoding="utf-8")


def attach(uri: str, run_id: str, files: Mapping[Path, str]) -> None:
    """Add files to the folders of a run's artifacts that they name (the report is written after the run was recorded), and read them back.

    The same files again are not sent again: a tag, which is written last, has their digest.
    """
    digest = digest_value({f"{into}/{file.name}": digest_file(file) for file, into in files.items()})
    with reaching(uri), temporary() as folder:
        client = connect(uri)
        if client.get_run(run_id).data.tags.get(ATTACHED) == digest:
            return
        for file, into in files.items():
            (folder / into).mkdir(exist_ok=True)
            shutil.copy2(file, folder / into)
        for into in sorted(set(files.values())):
            upload(client, run_id, folder / into, into)
        client.set_tag(run_id, ATTACHED, digest)


def _datasets(workspace: Path, lineage: Lineage) -> list[DatasetInput]:
    """Return snapshot, training rows and test rows as inputs named by our digests; MLflow's own would hash a sample."""
    profile = Profile.read(workspace / "data/prepared")
    raw = SnapshotManifest.read(workspace / "data/raw")
    learn, test = workspace / "data/prepared/learn/train.parquet", workspace / "data/prepared/test/test.parquet"
    return [
        _dataset(lineage.model, "snapshot", raw.digest, str(raw.source), {"num_rows": raw.rows}, {name: "string" for name in raw.columns}),
        _dataset(lineage.model, "training", profile.learn_digest, str(learn), *_shape(learn)),
        _dataset(lineage.model, "test", profile.test_digest, str(test), *_shape(test)),
    ]


def _shape(path: Path) -> tuple[dict[str, int], dict[str, str]]:
    parquet = pq.ParquetFile(path)
    return {"num_rows": parquet.metadata.num_rows}, {field.name: "string" for field in parquet.schema_arrow}


def _dataset(name: str, context: str, digest: str, source: str, profile: dict[str, int], columns: dict[str, str]) -> DatasetInput:
    schema = {"mlflow_colspec": [{"type": kind, "name": column, "required": False} for column, kind in columns.items()]}
    entity = Dataset(
        name=f"{name}-{context}",
        digest=digest[:32],  # MLflow's limit is 36 characters; the tag has all of it
        source_type="local",
        source=json.dumps({"uri": source}),
        schema=json.dumps(schema),
        profile=json.dumps(profile),
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", context), InputTag("retune.digest", digest)])


def _add_stages(client: MlflowClient, place: str, parent: str, workspace: Path, facts: dict[str, RunFacts], live: str | None) -> None:
    lines = read_lines(workspace / HISTORY)
    points = read_points(lines, started_at(workspace / HISTORY, lines) if lines else None)
    for stage, fact in facts.items():
        run_id = None
        if stage == "train":
            run_id = _adopt(client, place, parent, live, points)
        run_id = run_id or runs.start(client, place, stage, "stage", {"retune.stage": stage}, parent)
        log_all(client, run_id, params=params_of(fact.params), metrics=metrics_of(fact.metrics))
        if stage == "train":
            log_all(client, run_id, metrics=missing(client, run_id, points))
        if stage == "tune":
            for trial in read_trials(workspace / "models/tuned/trials.parquet"):
                _add_trial(client, place, run_id, trial)
        client.set_terminated(run_id, "FINISHED")


def _adopt(client: MlflowClient, place: str, parent: str, live: str | None, points: list[Point]) -> str | None:
    """Make the followed run the train child, if what it holds is the beginning of this history; return its id then."""
    known = {(key(point.name), point.step, point.value) for point in points}
    loose = list(runs.search(client, [place], f"tags.`{runs.KIND}` = 'live'"))
    for run in sorted(loose, key=lambda run: (run.info.run_id == live, run.info.start_time), reverse=True)[:_LIVE_RUNS]:
        run_id = str(run.info.run_id)
        seen = {(name, m.step, m.value) for name in run.data.metrics for m in client.get_metric_history(run_id, name)}
        if seen and seen <= known:
            client.update_run(run_id, name="train")
            log_all(client, run_id, tags=tags_of({runs.PARENT: parent, runs.KIND: "stage", "retune.stage": "train"}))
            return run_id
    return None


def missing(client: MlflowClient, run_id: str, points: list[Point]) -> list[Metric]:
    """Return the points of a history that the run does not have yet."""
    have = {(name, metric.step) for name in {key(point.name) for point in points} for metric in client.get_metric_history(run_id, name)}
    now = milliseconds()
    new = [point for point in points if (key(point.name), point.step) not in have]
    return [Metric(key(point.name), point.value, now if point.at is None else point.at, point.step) for point in new]


def _add_trial(client: MlflowClient, place: str, parent: str, trial: TrialRecord) -> None:
    tags = {"retune.stage": "tune", "retune.trial": trial.number, "retune.state": trial.state}
    run_id = runs.start(client, place, f"trial {trial.number}", "trial", tags, parent)
    metrics = metrics_of(trial.metrics)
    now = milliseconds()
    metrics += [Metric("intermediate", value, now, step) for step, value in sorted(trial.values.items())]
    if trial.value is not None:
        metrics += metrics_of({"value": trial.value})
    log_all(client, run_id, params=params_of(trial.params), metrics=metrics)
    client.set_terminated(run_id, _ENDED.get(trial.state, "FINISHED"))
