"""Environments (a registry with its ledger), and copying a version with its evidence from one to another, as staging to production.

Reads one MLflow store; writes a run, its artifacts, a package and a version into another.
"""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric

from components.core.errors import BadModel
from components.core.temporary import temporary
from components.ledger import Entry
from components.mlflow_store.connection import (
    all_pages,
    connect,
    delete_artifacts,
    ensure_experiment,
    log_in_batches,
    params_of,
    store_lock,
    tags_of,
    translated_errors,
    upload,
)
from components.mlflow_store.registry.register import (
    create_version,
    delete_orphaned_packages,
    find_or_complete,
    mark_complete,
    upload_package,
)
from components.mlflow_store.registry.verdicts import attach_verdict, read_verdict
from components.mlflow_store.registry.verify import checked_package, registered_version
from components.mlflow_store.registry.versions import (
    COMPLETE,
    JUDGED_AGAINST,
    KEY,
    ORIGIN,
    ORIGIN_VERSION,
    STORE_TAGS,
    Version,
    find,
    lookup,
)
from components.mlflow_store.registry.versions import search as search_versions

log = logging.getLogger(__name__)

# Prefix of the tag of a copied verdict. The tag's name ends with the evidence, its value is the version that the verdict was reached
# against, by its number in this store. It is written before the verdict, so a copy's verdict without this tag was reached here.
_COPIED = f"{JUDGED_AGAINST}."
_LOADER_FILES = shutil.ignore_patterns("__pycache__", "registered_model_meta")  # created when a package is loaded


@dataclass(frozen=True)
class Environment:
    """A named pair of registry and ledger URLs: `staging`, `production`, or the project's own, `local`."""

    name: str
    mlflow: str
    ledger: str


def copy_version(source: Environment, target: Environment, name: str, number: int) -> Version:
    """Copy a version: its package, its run with all artifacts, its tags and its verdict; repeating it copies nothing.

    The tag `retune.complete` is set last, after everything was read back; an incomplete copy is replaced.

    Raises:
        NotFound: the version does not exist.
        BadModel: the package differs from the registered one.
        Unavailable: a store is busy, or the target's files differ from those that were sent.
    """
    version = registered_version(source.mlflow, name, number)
    folder = checked_package(source.mlflow, version)
    with translated_errors(target.mlflow), store_lock(target.mlflow, f"register {name}"):
        client = connect(target.mlflow)
        delete_orphaned_packages(client, target.mlflow, name, version.key)
        copied = find_or_complete(client, target.mlflow, name, version.key, challenger=False)
        if copied is None:
            run_id = _copy_run(source, target, client, version)
            copied = _copy_package(source, target, client, version, folder, run_id)
            log.info("copied %s from %s to %s as version %d", version.uri, source.name, target.name, copied.number)
    return _copy_verdict(source, target, version, copied)


def _copy_run(source: Environment, target: Environment, client: MlflowClient, version: Version) -> str:
    """Copy the run with its params, metrics, datasets, Retune's tags and artifacts, and return the id of the copy."""
    with translated_errors(source.mlflow):
        origin = connect(source.mlflow)
        run = origin.get_run(version.run_id)
        histories = [point for name in run.data.metrics for point in origin.get_metric_history(version.run_id, name)]
    experiment = ensure_experiment(client, target.mlflow, version.name)
    same = f"tags.`{KEY}` = '{version.key}' and tags.`{ORIGIN}` = '{source.name}'"
    for incomplete in all_pages(client.search_runs, [experiment], same):
        client.delete_run(incomplete.info.run_id)
        delete_artifacts(str(incomplete.info.artifact_uri))
    tags = {KEY: version.key, ORIGIN: source.name, "retune.origin_run": version.run_id}
    run_id = str(client.create_run(experiment, start_time=run.info.start_time, tags=tags, run_name=run.info.run_name).info.run_id)
    metrics = [Metric(point.key, point.value, point.timestamp, point.step) for point in histories]  # without the source's run
    prefixes = ("retune.", "mlflow.source.")  # MLflow's other tags describe the source store
    kept = {name: value for name, value in run.data.tags.items() if name.startswith(prefixes) and name not in STORE_TAGS}
    log_in_batches(client, run_id, metrics=metrics, params=params_of(run.data.params), tags=tags_of(kept))
    if run.inputs is not None:
        client.log_inputs(run_id, run.inputs.dataset_inputs)
    with temporary() as folder:
        with translated_errors(source.mlflow):
            artifacts = Path(origin.download_artifacts(version.run_id, "", str(folder)))
        upload(client, run_id, artifacts)
    client.set_terminated(run_id, run.info.status, run.info.end_time)
    client.set_tag(run_id, COMPLETE, "true")
    return run_id


def _copy_package(source: Environment, target: Environment, client: MlflowClient, version: Version, folder: Path, run_id: str) -> Version:
    """Upload the unchanged package and create a version from it.

    Raises:
        BadModel: the fingerprint of the uploaded package differs from the registered one.
    """

    def build(built: Path, _ids: Mapping[str, str]) -> None:
        shutil.copytree(folder, built, ignore=_LOADER_FILES)

    model_id, fingerprint = upload_package(client, target.mlflow, version.name, version.key, run_id, build)
    if fingerprint != version.tags.get("retune.package"):
        raise BadModel(f"{version.uri} of {source.name} changed during the copy; nothing was registered")
    kept = {name: value for name, value in version.tags.items() if name not in STORE_TAGS and not name.startswith(_COPIED)}
    tags = {**kept, ORIGIN: source.name, ORIGIN_VERSION: version.number}
    description = f"{version.description.partition(chr(10))[0]} Copied from version {version.number} of {source.name}."
    number = create_version(client, target.mlflow, version.name, model_id, run_id, tags, description)
    mark_complete(client, version.name, number, run_id, challenger=False)
    return replace(find(client, version.name, number), created=True)


def _copy_verdict(source: Environment, target: Environment, version: Version, copied: Version) -> Version:
    """Attach the source's verdict to the copy, with the reference version's number in the target; keep a verdict reached in the target."""
    verdict = read_verdict(source.mlflow, version)
    if verdict is None or ORIGIN not in copied.tags or (judged_here(copied) and copied.evidence != verdict.evidence):
        return copied
    key, version_id = reference_key(source, version), (copied.name, str(copied.number))
    with translated_errors(target.mlflow):
        client = connect(target.mlflow)
        number = next((str(known.number) for known in search_versions(client, copied.name) if known.key == key), "none")
        client.set_model_version_tag(*version_id, f"{_COPIED}{verdict.evidence}", number)
        attach_verdict(target.mlflow, copied.run_id, copied.name, copied.number, verdict)
        client.set_model_version_tag(*version_id, JUDGED_AGAINST, number)  # for readers of MLflow's page
        return find(client, copied.name, copied.number)


def judged_here(version: Version) -> bool:
    """Return whether a version's verdict was reached in this environment instead of copied."""
    return version.evidence is not None and f"{_COPIED}{version.evidence}" not in version.tags


def reference_number(version: Version) -> int | None:
    """Return the version that a verdict was reached against, by its number here; None if there was none or it does not exist here."""
    number = version.tags.get(f"{_COPIED}{version.evidence}")
    if number is None:
        return version.judged_against
    return int(number) if number.isdigit() else None


def reference_key(source: Environment, version: Version) -> str | None:
    """Return the key of the champion that a version was judged against in its environment; None if there was none or it was deleted."""
    number = reference_number(version)
    if number is None:
        return None
    with translated_errors(source.mlflow):
        reference = lookup(connect(source.mlflow), version.name, number)
    return reference.key if reference else None


def judged_elsewhere_note(source: Environment, version: Version, head: Entry | None) -> str:
    """Return a note for the target's ledger if the verdict was not about the target's champion, else an empty string."""
    if (head.key if head else None) == reference_key(source, version):
        return ""
    number = reference_number(version)
    reference = f"version {number}" if number is not None else "no champion"
    return f", judged there against {reference}, which is not the champion here"
