"""MLflow runs with Retune's tags: start, find, delete and close them."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from mlflow import MlflowClient
from mlflow.entities import Run

from components.core.process import is_foreign, is_gone, owner
from components.mlflow_store.connection import all_pages, connect, delete_artifacts, now_ms, tags_of, translated_errors

log = logging.getLogger(__name__)

KEY, KIND, COMPLETE, OWNER, PARENT = "retune.key", "retune.kind", "retune.complete", "retune.owner", "mlflow.parentRunId"


def start(client: MlflowClient, experiment: str, name: str, run_type: str, tags: Mapping[str, object], parent: str | None = None) -> str:
    """Start a run tagged with this process as its owner, and return its id."""
    all_tags = {**tags, KIND: run_type, OWNER: owner(), "mlflow.source.name": "retune", PARENT: parent}
    plain = {tag.key: tag.value for tag in tags_of(all_tags)}
    return str(client.create_run(experiment, start_time=now_ms(), tags=plain, run_name=name).info.run_id)


@contextmanager
def mark_failure(client: MlflowClient, run_id: str) -> Iterator[None]:
    """Mark the run FAILED or KILLED if the block raises; re-raise the error."""
    try:
        yield
    except BaseException as error:
        with suppress(Exception):  # the store may have caused the failure
            client.set_terminated(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise


def search(client: MlflowClient, experiments: list[str], query: str) -> list[Run]:
    """Return every run of the experiments that matches MLflow's filter `query` and is not deleted."""
    return all_pages(client.search_runs, experiments, query)


def candidates(client: MlflowClient, experiment: str, key: str) -> list[Run]:
    """Return the parent runs with this key, complete ones first."""
    parents = search(client, [experiment], f"tags.`{KEY}` = '{key}' and tags.`{KIND}` = 'candidate'")
    return sorted(parents, key=lambda run: run.data.tags.get(COMPLETE) != "true")


def remove(client: MlflowClient, run: Run) -> None:
    """Delete a run and its descendants, with their artifacts if these are local."""
    for child in search(client, [run.info.experiment_id], f"tags.`{PARENT}` = '{run.info.run_id}'"):
        remove(client, child)
    client.delete_run(run.info.run_id)
    delete_artifacts(str(run.info.artifact_uri))


def close_orphaned_runs(uri: str, model: str | None = None, exclusive: bool = False) -> int:
    """Mark RUNNING runs of Retune (of one model) as KILLED if their process is gone; return their number.

    A process on another host can only be known to be gone if the caller holds the model's lock among all hosts (`exclusive`).
    """
    with translated_errors(uri):
        client = connect(uri)
        experiments = [record.experiment_id for record in all_pages(client.search_experiments) if model in (None, record.name)]
        if not experiments:
            return 0
        running = search(client, experiments, "attributes.status = 'RUNNING'")
        owners = [(run, run.data.tags.get(OWNER, "")) for run in running]
        orphaned = [run for run, tag in owners if is_gone(tag) or (exclusive and is_foreign(tag))]
        for run in orphaned:
            client.set_terminated(run.info.run_id, "KILLED")
    if orphaned:
        log.info("%d runs marked KILLED: their processes are gone", len(orphaned))
    return len(orphaned)
