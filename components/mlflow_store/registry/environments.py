"""Where versions live, and how one is copied with all that it can be judged by: from staging to production.

Reads one store of MLflow's; writes a run, its artifacts, a package and a version into another.
"""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Run

from components.core.errors import BadModel
from components.core.temporary import temporary
from components.ledger import Entry
from components.mlflow_store.connection import (
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
    ANSWER,
    COMPLETE,
    EVIDENCE,
    JUDGED_AGAINST,
    KEY,
    LEDGER,
    ORIGIN,
    ORIGIN_VERSION,
    PROMOTED,
    VERDICT,
    VERDICT_KEY,
    Version,
    find,
    lookup,
)
from components.mlflow_store.registry.versions import search as search_versions

log = logging.getLogger(__name__)

_OF_A_STORE = {
    COMPLETE,
    PROMOTED,
    LEDGER,
    ANSWER,
    VERDICT,
    VERDICT_KEY,
    JUDGED_AGAINST,
    EVIDENCE,
    "retune.verdict_run",
}  # made anew in the target
# The tag of a verdict that was copied, by its evidence: whom it is about, as this store numbers it. It is written before the verdict:
# no copied verdict is without it, and a copy's verdict that has none was reached here.
_COPIED = f"{JUDGED_AGAINST}."
_LEFT = shutil.ignore_patterns("__pycache__", "registered_model_meta")  # what loading a package leaves beside it


@dataclass(frozen=True)
class Environment:
    """A registry and its ledger by their addresses: `staging`, `production`, or a project's own, `local`."""

    name: str
    mlflow: str
    ledger: str


def copy_version(source: Environment, target: Environment, name: str, number: int) -> Version:
    """Copy a version: its package file by file, its run with every artifact, its tags and its verdict. Repeating it copies nothing.

    A copy counts once all of it was read back: the tag `retune.complete` is last, and what a killed call left is replaced.

    Raises:
        NotThere: no such version.
        BadModel: its package is not what was registered.
        Unavailable: a store is busy, or what the target holds is not what was sent.
    """
    version = registered_version(source.mlflow, name, number)
    folder = checked_package(source.mlflow, version)
    with translated_errors(target.mlflow), store_lock(target.mlflow, f"register {name}"):
        client = connect(target.mlflow)
        delete_orphaned_packages(client, target.mlflow, name, version.key)
        known = find_or_complete(client, target.mlflow, name, version.key, challenger=False)
        if known is None:
            run_id = _copy_run(source, target, client, version)
            known = _copy_package(source, target, client, version, folder, run_id)
            log.info("copied %s from %s to %s as version %d", version.uri, source.name, target.name, known.number)
    return _copy_verdict(source, target, version, known)


def _copy_run(source: Environment, target: Environment, client: MlflowClient, version: Version) -> str:
    """Copy the run with its params, metrics, tags and artifacts, and return its id in the target."""
    with translated_errors(source.mlflow):
        origin = connect(source.mlflow)
        run = origin.get_run(version.run_id)
        metrics = [point for name in run.data.metrics for point in origin.get_metric_history(version.run_id, name)]
    place = ensure_experiment(client, target.mlflow, version.name)
    for torn in client.search_runs([place], f"tags.`{KEY}` = '{version.key}' and tags.`{ORIGIN}` = '{source.name}'"):
        client.delete_run(torn.info.run_id)
        delete_artifacts(str(torn.info.artifact_uri))
    tags = {KEY: version.key, ORIGIN: source.name, "retune.origin_run": version.run_id}
    run_id = str(client.create_run(place, start_time=run.info.start_time, tags=tags, run_name=run.info.run_name).info.run_id)
    _fill(client, run_id, run, metrics)
    with temporary() as aside:
        with translated_errors(source.mlflow):
            artifacts = Path(origin.download_artifacts(version.run_id, "", str(aside)))
        upload(client, run_id, artifacts)
    client.set_terminated(run_id, run.info.status, run.info.end_time)
    client.set_tag(run_id, COMPLETE, "true")
    return run_id


def _fill(client: MlflowClient, run_id: str, run: Run, metrics: list[Metric]) -> None:
    """Copy what the source's store holds of a run beside its artifacts; MLflow's own tags are about that store."""
    ours = ("retune.", "mlflow.source.")
    tags = {name: value for name, value in run.data.tags.items() if name.startswith(ours) and name not in _OF_A_STORE}
    points = [Metric(point.key, point.value, point.timestamp, point.step) for point in metrics]
    log_in_batches(client, run_id, metrics=points, params=params_of(run.data.params), tags=tags_of(tags))
    if run.inputs is not None:
        client.log_inputs(run_id, run.inputs.dataset_inputs)


def _copy_package(source: Environment, target: Environment, client: MlflowClient, version: Version, folder: Path, run_id: str) -> Version:
    """Send the package as it is, and make a version of it.

    Raises:
        BadModel: what was sent has another fingerprint than what was registered.
    """

    def build(built: Path, _ids: Mapping[str, str]) -> None:
        shutil.copytree(folder, built, ignore=_LEFT)

    model_id, whole = upload_package(client, target.mlflow, version.name, version.key, run_id, build)
    if whole != version.tags.get("retune.package"):
        raise BadModel(f"{version.uri} of {source.name} changed while it was copied; nothing was registered")
    kept = {name: value for name, value in version.tags.items() if name not in _OF_A_STORE and not name.startswith(_COPIED)}
    tags = {**kept, ORIGIN: source.name, ORIGIN_VERSION: version.number}
    description = f"{version.description.partition(chr(10))[0]} Copied from version {version.number} of {source.name}."
    number = create_version(client, target.mlflow, version.name, model_id, run_id, tags, description)
    mark_complete(client, version.name, number, run_id, challenger=False)
    return replace(find(client, version.name, number), created=True)


def _copy_verdict(source: Environment, target: Environment, version: Version, copied: Version) -> Version:
    """Attach the source's verdict to the copy; whom it was about is told by the number that this one has in the target.

    A verdict that was reached in the target stands there.
    """
    verdict = read_verdict(source.mlflow, version)
    if verdict is None or ORIGIN not in copied.tags or (judged_here(copied) and copied.evidence != verdict.evidence):
        return copied
    key, place = reference_key(source, version), (copied.name, str(copied.number))
    with translated_errors(target.mlflow):
        client = connect(target.mlflow)
        number = next((str(one.number) for one in search_versions(client, copied.name) if one.key == key), "none")
        client.set_model_version_tag(*place, f"{_COPIED}{verdict.evidence}", number)
        attach_verdict(target.mlflow, copied.run_id, copied.name, copied.number, verdict)
        client.set_model_version_tag(*place, JUDGED_AGAINST, number)  # for who reads it in MLflow
        return find(client, copied.name, copied.number)


def judged_here(version: Version) -> bool:
    """Say whether the verdict that a version has was reached in this environment: it was not copied with it."""
    return version.evidence is not None and f"{_COPIED}{version.evidence}" not in version.tags


def reference_number(version: Version) -> int | None:
    """Return whom a version's verdict is about, by the number in this environment; None where there was nobody, or it is not here."""
    number = version.tags.get(f"{_COPIED}{version.evidence}")
    if number is None:
        return version.judged_against
    return int(number) if number.isdigit() else None


def reference_key(source: Environment, version: Version) -> str | None:
    """Return the key of the champion that a version was judged against in its environment; None where there was none, or it is gone."""
    number = reference_number(version)
    if number is None:
        return None
    with translated_errors(source.mlflow):
        opponent = lookup(connect(source.mlflow), version.name, number)
    return opponent.key if opponent else None


def judged_elsewhere_note(source: Environment, version: Version, head: Entry | None) -> str:
    """Return what the target's ledger must say where the verdict was not about the target's champion; nothing where it was."""
    if (head.key if head else None) == reference_key(source, version):
        return ""
    number = reference_number(version)
    about = f"version {number}" if number is not None else "no champion"
    return f", judged there against {about}, which is not the champion here"
