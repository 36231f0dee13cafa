"""Record a candidate in MLflow: one parent run with a child per stage and per trial; idempotent by the candidate's key.

Reads the outputs of the stages, params.yaml and dvc.lock; writes runs and their artifacts.
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
from components.artifacts.training import read_lines
from components.core.documents import flatten
from components.core.errors import NotFound
from components.core.hashing import digest_file, digest_folder, digest_value
from components.core.temporary import temporary
from components.mlflow_store.connection import (
    connect,
    ensure_experiment,
    log_in_batches,
    metrics_of,
    params_of,
    store_lock,
    tags_of,
    translated_errors,
    upload,
)
from components.mlflow_store.tracking import rows, runs
from components.mlflow_store.tracking.facts import RunFacts, headline, history_metrics, stage_facts, started_at
from components.mlflow_store.tracking.trials import add_trials

log = logging.getLogger(__name__)

# file or folder in the workspace: folder of the run's artifacts
ARTIFACTS = {
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
_LIVE_RUNS = 5  # number of the newest unadopted live runs to compare with the history
ATTACHED = "retune.attached"  # tag with the digest of the files that were added after the run was recorded


@dataclass(frozen=True)
class RecordedRun:
    """The parent run of a candidate; `created` is false if an earlier call recorded it."""

    run_id: str
    key: str
    created: bool


def run_key(workspace: Path) -> str:
    """Return the key of the candidate: a digest of model folder (weights, tokenizer, spec), raw data and test set.

    Raises:
        NotFound: no model was trained or evaluated here, or the evaluation belongs to another model or snapshot.
    """
    model, raw = workspace / "models/trained/model", workspace / "data/raw"
    if not model.is_dir():
        raise NotFound(f"{model} is missing: `dvc repro train` writes it")
    metrics = Metrics.read(workspace / "reports/evaluation")
    # A single stage (`dvc repro train`), an interrupted run or a rejected snapshot leaves files of two runs.
    if metrics.model_digest != digest_folder(model):
        raise NotFound(f"the evaluation belongs to another model than {model}: run `dvc repro`")
    if metrics.snapshot != SnapshotManifest.read(raw).digest:
        raise NotFound(f"the evaluation belongs to another snapshot than {raw}: run `dvc repro`")
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
    """Record the workspace's candidate once, and return its run; the run that `follow` wrote becomes the train child.

    `live` is the id of that run if known; otherwise the newest live run that contains the beginning of this history is used. `uncommitted`
    returns the uncommitted changes of a dirty lineage; at most 5 MB are kept.

    An incomplete run of a killed call is replaced. The tag `retune.complete` is set last.

    Raises:
        NotFound: a stage has not run.
        Unavailable: the store is busy, or the uploaded files differ from those that were sent.
    """
    candidate_key = run_key(workspace)
    facts = stage_facts(workspace)
    with translated_errors(uri), store_lock(uri, f"record {candidate_key}"):
        client = connect(uri)
        experiment = ensure_experiment(client, uri, lineage.model)
        known = runs.candidates(client, experiment, candidate_key)
        if known and known[0].data.tags.get(runs.COMPLETE) == "true":
            log.info("already recorded as run %s", known[0].info.run_id)
            return RecordedRun(known[0].info.run_id, candidate_key, created=False)
        for incomplete in known:
            log.warning("run %s of the same candidate is incomplete: replaced", incomplete.info.run_id)
            runs.remove(client, incomplete)
        tags = {runs.KEY: candidate_key, **lineage_tags(lineage)}
        parent = runs.start(client, experiment, lineage.model, "candidate", tags)
        with runs.mark_failure(client, parent):
            _fill_parent(client, parent, workspace, lineage, params, uncommitted)
            _add_stages(client, experiment, parent, workspace, facts, live)
        client.set_terminated(parent, "FINISHED")
        client.set_tag(parent, runs.COMPLETE, "true")
    log.info("recorded as run %s", parent)
    return RecordedRun(parent, candidate_key, created=True)


def lineage_tags(lineage: Lineage) -> dict[str, object]:
    """Return tags for code, data and flow run; `retune.dvc.PATH` is DVC's md5 of that output."""
    return {
        "mlflow.source.git.commit": lineage.git_commit,
        **lineage.tags,
        "retune.python": lineage.python,
        **{f"retune.dvc.{path}": md5 for path, md5 in lineage.hashes.items()},
    }


def _fill_parent(
    client: MlflowClient, run_id: str, workspace: Path, lineage: Lineage, params: Mapping[str, object], uncommitted: Callable[[], bytes]
) -> None:
    metrics = Metrics.read(workspace / "reports/evaluation")
    log_in_batches(client, run_id, params=params_of(flatten(params)), metrics=metrics_of(headline(metrics)))
    client.log_inputs(run_id, _datasets(workspace, lineage))
    with temporary() as staged:
        for source, folder in ARTIFACTS.items():
            path, target = workspace / source, staged / folder
            if path.is_dir():
                shutil.copytree(path, target, dirs_exist_ok=True)
            elif path.exists():
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
        rows.write_rows(workspace, staged / "data")
        lineage.write(staged)
        (staged / "params.json").write_text(json.dumps(params, indent=2, default=str) + "\n", encoding="utf-8")
        if lineage.dirty:
            (staged / "uncommitted.diff").write_bytes(uncommitted()[:_DIFF_BYTES])
        upload(client, run_id, staged)


def attach_files(uri: str, run_id: str, files: Mapping[Path, str]) -> None:
    """Upload files into artifact folders of a recorded run (such as the report, which is written later), and read them back.

    Uploading the same files again does nothing: a tag, which is written last, stores their digest.
    """
    digest = digest_value({f"{into}/{file.name}": digest_file(file) for file, into in files.items()})
    with translated_errors(uri), temporary() as folder:
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
    """Return snapshot, training and test rows as dataset inputs with our digests; MLflow's own would hash a sample."""
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
    schema = {"mlflow_colspec": [{"type": dtype, "name": column, "required": False} for column, dtype in columns.items()]}
    entity = Dataset(
        name=f"{name}-{context}",
        digest=digest[:32],  # MLflow allows 36 characters; the tag stores the full digest
        source_type="local",
        source=json.dumps({"uri": source}),
        schema=json.dumps(schema),
        profile=json.dumps(profile),
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", context), InputTag("retune.digest", digest)])


def _add_stages(client: MlflowClient, experiment: str, parent: str, workspace: Path, facts: dict[str, RunFacts], live: str | None) -> None:
    lines = read_lines(workspace / HISTORY)
    points = history_metrics(lines, started_at(workspace / HISTORY, lines))
    for stage, fact in facts.items():
        run_id = _adopt(client, experiment, parent, live, points) if stage == "train" else None
        run_id = run_id or runs.start(client, experiment, stage, "stage", {"retune.stage": stage}, parent)
        log_in_batches(client, run_id, params=params_of(fact.params), metrics=metrics_of(fact.metrics))
        if stage == "train":
            keys = {point.key for point in points}
            stored = {(name, metric.step) for name in keys for metric in client.get_metric_history(run_id, name)}
            log_in_batches(client, run_id, metrics=[point for point in points if (point.key, point.step) not in stored])
        if stage == "tune":
            add_trials(client, experiment, run_id, workspace / "models/tuned")
        client.set_terminated(run_id, "FINISHED")


def _adopt(client: MlflowClient, experiment: str, parent: str, live: str | None, points: list[Metric]) -> str | None:
    """Turn the live run whose points begin this history into the train child; return its id, or None if there is none."""
    expected = {(point.key, point.step, point.value) for point in points}
    live_runs = runs.search(client, [experiment], f"tags.`{runs.KIND}` = 'live'")
    for run in sorted(live_runs, key=lambda run: (run.info.run_id == live, run.info.start_time), reverse=True)[:_LIVE_RUNS]:
        run_id = str(run.info.run_id)
        seen = {(name, m.step, m.value) for name in run.data.metrics for m in client.get_metric_history(run_id, name)}
        if seen and seen <= expected:
            client.update_run(run_id, name="train")
            log_in_batches(client, run_id, tags=tags_of({runs.PARENT: parent, runs.KIND: "stage", "retune.stage": "train"}))
            return run_id
    return None
