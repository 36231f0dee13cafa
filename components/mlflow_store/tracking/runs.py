"""Runs as Retune tags them: found by key, children by parent, and closed when their process is gone."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from mlflow import MlflowClient
from mlflow.entities import Run

from components.core.process import is_foreign, is_gone, owner
from components.mlflow_store.connection import connect, forget_folder, milliseconds, reaching, tags_of

log = logging.getLogger(__name__)

KEY, KIND, COMPLETE, OWNER, PARENT = "retune.key", "retune.kind", "retune.complete", "retune.owner", "mlflow.parentRunId"


def start(client: MlflowClient, experiment: str, name: str, kind: str, tags: Mapping[str, object], parent: str | None = None) -> str:
    """Open a run that says which process feeds it, and return its id."""
    all_tags = {**tags, KIND: kind, OWNER: owner(), "mlflow.source.name": "retune", PARENT: parent}
    plain = {tag.key: tag.value for tag in tags_of(all_tags)}
    return str(client.create_run(experiment, start_time=milliseconds(), tags=plain, run_name=name).info.run_id)


@contextmanager
def failing(client: MlflowClient, run_id: str) -> Iterator[None]:
    """Mark the run FAILED or KILLED when the block does not come to its end; the error goes on."""
    try:
        yield
    except BaseException as error:
        with suppress(Exception):  # the store may be what failed
            client.set_terminated(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise


def search(client: MlflowClient, experiments: list[str], query: str) -> Iterator[Run]:
    """Yield every live run of the experiments that fits MLflow's filter `query`."""
    token = None
    while True:
        page = client.search_runs(experiments, filter_string=query, max_results=1_000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def candidates(client: MlflowClient, experiment: str, key: str) -> list[Run]:
    """Return the parent runs with this key, the complete ones first."""
    found = search(client, [experiment], f"tags.`{KEY}` = '{key}' and tags.`{KIND}` = 'candidate'")
    return sorted(found, key=lambda run: run.data.tags.get(COMPLETE) != "true")


def children(client: MlflowClient, experiment: str, parent: str) -> list[Run]:
    """Return the runs directly below `parent`."""
    return list(search(client, [experiment], f"tags.`{PARENT}` = '{parent}'"))


def remove(client: MlflowClient, run: Run) -> None:
    """Delete a run and all below it, with their artifacts where they are on this machine."""
    for child in children(client, run.info.experiment_id, run.info.run_id):
        remove(client, child)
    client.delete_run(run.info.run_id)
    forget_folder(str(run.info.artifact_uri))


def reconcile(uri: str, model: str | None = None, alone: bool = False) -> int:
    """Mark as KILLED every RUNNING run of Retune (of one model) whose process is gone; return how many.

    Of a process on another host only who holds the model's lock among all hosts, `alone`, knows that it is gone.
    """
    with reaching(uri):
        client = connect(uri)
        found = client.search_experiments()
        experiments = [one.experiment_id for one in found if model in (None, one.name)]
        if not experiments:
            return 0
        running = search(client, experiments, "attributes.status = 'RUNNING'")
        owners = [(run, run.data.tags.get(OWNER, "")) for run in running]
        lost = [run for run, tag in owners if is_gone(tag) or (alone and is_foreign(tag))]
        for run in lost:
            client.set_terminated(run.info.run_id, "KILLED")
    if lost:
        log.info("%d runs marked KILLED: their processes are gone", len(lost))
    return len(lost)
