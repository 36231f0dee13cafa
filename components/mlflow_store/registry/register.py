"""Register a recorded candidate, once: the same model and data give the same version.

Reads the workspace; writes a package into MLflow's artifacts and a version into its registry.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException

from components.artifacts.lineage import Lineage
from components.artifacts.metrics import Metrics
from components.core.errors import Unavailable
from components.core.hashing import digest_folder
from components.core.markdown import cell
from components.core.process import is_gone, owner
from components.core.temporary import temporary
from components.mlflow_store.connection import (
    all_pages,
    connect,
    default_store,
    delete_artifacts,
    ensure_experiment,
    store_lock,
    tags_of,
    translated_errors,
)
from components.mlflow_store.registry import package
from components.mlflow_store.registry.versions import (
    ADAPTER,
    CHALLENGER,
    CHAMPION,
    COMPLETE,
    KEY,
    OWNER,
    PACKAGE,
    VERSION,
    WEIGHTS,
    Version,
    delete,
    find,
    records,
    search,
)

log = logging.getLogger(__name__)

# name in the package: file in the workspace, if it exists
EXTRAS = {"dvc_lock": "dvc.lock", "dvc_stages": "dvc.yaml", "params": "params.yaml"}
_STORES = " Stores the adapter only; loading merges it into the base."


def register(workspace: Path, uri: str, *, run_id: str, key: str, lineage: Lineage, code: Path = package.CODE) -> Version:
    """Register the workspace's model under `lineage.model`; `run_id` and `key` belong to its recorded run.

    An existing version with this key is returned; an incomplete one is completed if its package is intact, else replaced. A version is
    valid once its package was read back: the tag `retune.complete` is set last. A new version is the `challenger` until it is judged.
    Packages of killed calls that belong to no version are deleted.

    Raises:
        Unavailable: the store is busy, or the uploaded files differ from those that were sent.
    """
    name = lineage.model
    with translated_errors(uri), store_lock(uri, f"register {name}"):
        client = connect(uri)
        delete_orphaned_packages(client, uri, name, key)
        if (known := find_or_complete(client, uri, name, key, challenger=True)) is not None:
            log.info("already registered as version %d", known.number)
            if (ADAPTER in known.tags) != ((workspace / "models/trained" / package.ADAPTER).is_dir()):
                log.warning(
                    "version %d stores %s and is not changed: train.lora_store applies to new versions only, and this is the same model",
                    *(known.number, "an adapter" if ADAPTER in known.tags else "the whole model"),
                )
            return known
        model_id, digests = _upload(client, uri, workspace, lineage, key, run_id, code)
        metrics = Metrics.read(workspace / "reports/evaluation")
        tags = {KEY: key, **_tags(lineage, metrics), **digests}
        description = describe(lineage, metrics) + (_STORES if ADAPTER in digests else "")
        number = create_version(client, uri, name, model_id, run_id, tags, description)
        mark_complete(client, name, number, run_id, challenger=True)
        log.info("registered %s as version %d", name, number)
        return replace(find(client, name, number), created=True)


def find_or_complete(client: MlflowClient, uri: str, name: str, key: str, *, challenger: bool) -> Version | None:
    """Return the complete version of a candidate, or None.

    An incomplete version is completed if its package is intact, which keeps its number, else deleted.
    """
    for known in (version for version in search(client, name) if version.key == key):
        if known.complete:
            _tag_run(client, known)
            return known
        if _is_intact(client, uri, known):
            log.warning("version %d of the same candidate is incomplete, but its package is intact: completed", known.number)
            mark_complete(client, name, known.number, known.run_id, challenger=challenger and CHAMPION not in known.aliases)
            return replace(find(client, name, known.number), created=True)
        log.warning("version %d of the same candidate is incomplete: replaced", known.number)
        delete(client, known)
    return None


def mark_complete(client: MlflowClient, name: str, number: int, run_id: str, *, challenger: bool) -> None:
    """Finish a version whose package was read back; the tag `retune.complete` is last, and every step can be repeated."""
    model_id = str(client.get_model_version(name, str(number)).source).removeprefix("models:/")
    client.set_logged_model_tags(model_id, {VERSION: str(number)})
    client.set_tag(run_id, VERSION, str(number))
    if challenger:
        client.set_registered_model_alias(name, CHALLENGER, str(number))
    client.set_model_version_tag(name, str(number), COMPLETE, "true")


def _tag_run(client: MlflowClient, version: Version) -> None:
    """Tag the run of a version with its number, which a killed call of an earlier release left out; the run may be deleted."""
    with suppress(MlflowException):
        if VERSION not in client.get_run(version.run_id).data.tags:
            client.set_tag(version.run_id, VERSION, str(version.number))


def _is_intact(client: MlflowClient, uri: str, version: Version) -> bool:
    """Return whether an incomplete version can be completed: its run exists, and its package is the one that was sent."""
    try:
        if client.get_run(version.run_id).info.lifecycle_stage == "deleted":
            return False
        folder = fetch(client, uri, str(client.get_model_version(version.name, str(version.number)).source))
        return package.fingerprint(folder) == version.tags.get(PACKAGE)
    except (MlflowException, OSError):
        return False


def _upload(
    client: MlflowClient, uri: str, workspace: Path, lineage: Lineage, key: str, run_id: str, code: Path
) -> tuple[str, dict[str, str]]:
    """Build and upload the package; return MLflow's id of it, and its digests as tags.

    A version made from uncommitted code contains all of that code, because no commit does.
    """
    stored = package.stored_folder(workspace / "models/trained")

    def build(built: Path, ids: Mapping[str, str]) -> None:
        extras = {label: workspace / file for label, file in EXTRAS.items() if (workspace / file).exists()}
        extras["questions"] = package.write_questions(workspace, built.with_name("questions.parquet"))
        if lineage.dirty_code:
            extras[package.PIPELINE_CODE] = package.copy_code(code, built.with_name(package.PIPELINE_CODE)).parent
        package.build(built, stored, extras, ids, code)

    model_id, whole = upload_package(client, uri, lineage.model, key, run_id, build)
    digests = {WEIGHTS: digest_folder(workspace / "models/trained/model"), PACKAGE: whole}
    return model_id, digests | ({ADAPTER: digest_folder(stored)} if stored.name == package.ADAPTER else {})


def upload_package(
    client: MlflowClient, uri: str, name: str, key: str, run_id: str, build: Callable[[Path, Mapping[str, str]], None]
) -> tuple[str, str]:
    """Upload the package that `build` writes under MLflow's ids, and read it back; return its id and fingerprint.

    The caller holds the lock of the model's registrations.

    Raises:
        Unavailable: the stored package differs from the one that was sent.
    """
    experiment = ensure_experiment(client, uri, name)
    allowed = re.sub("[/:.%\"']", "_", name)  # MLflow forbids these characters
    logged = client.create_logged_model(experiment, name=allowed, source_run_id=run_id, tags={KEY: key, OWNER: owner()})
    with temporary() as folder:
        built = folder / "package"
        build(built, {"artifact_path": logged.artifact_location, "run_id": run_id, "model_id": logged.model_id})
        whole = package.fingerprint(built)
        client.log_model_artifacts(logged.model_id, str(built))
    stored = fetch(client, uri, f"models:/{logged.model_id}")
    if package.fingerprint(stored) != whole:
        raise Unavailable(f"the package in {stored} differs from the one that was sent; is the disk full? Nothing was registered")
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged.model_id, whole


def delete_orphaned_packages(client: MlflowClient, uri: str, name: str, key: str) -> None:
    """Delete packages of killed calls that belong to no version, unless their sender may still be running.

    The caller holds the lock of the model's registrations, so a package of the candidate `key` has no other sender.
    """
    used = {str(record.source) for record in records(client, name)}
    models = all_pages(client.search_logged_models, [ensure_experiment(client, uri, name)])
    for sent in (model for model in models if KEY in model.tags):
        no_sender = sent.tags.get(OWNER) == owner() or is_gone(sent.tags.get(OWNER, ""))
        if f"models:/{sent.model_id}" in used or VERSION in sent.tags or not (no_sender or sent.tags[KEY] == key):
            continue
        log.warning("package %s is incomplete and belongs to no version: deleted", sent.model_id)
        client.delete_logged_model(sent.model_id)
        delete_artifacts(str(sent.artifact_location))


def fetch(client: MlflowClient, uri: str, source: str) -> Path:
    """Return a folder with the package at `source`: the stored folder itself if the store is local.

    `models:/` URIs are resolved here, because MLflow's own resolution uses the global store.
    """
    if source.startswith("models:/"):
        source = str(client.get_logged_model(source.removeprefix("models:/")).artifact_location)
    return Path(download_artifacts(artifact_uri=source, tracking_uri=uri, registry_uri=uri))


def create_version(
    client: MlflowClient, uri: str, name: str, model_id: str, run_id: str, tags: Mapping[str, object], description: str
) -> int:
    """Create a version of the package `model_id`, and the registered model if it does not exist; return the version's number."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    fitting = {tag.key: tag.value for tag in tags_of(tags)}
    source = f"models:/{model_id}"
    with default_store(uri):  # MLflow resolves the source in the global store
        created = client.create_model_version(name, source, run_id=run_id, tags=fitting, description=description, model_id=model_id)
    return int(created.version)


def _tags(lineage: Lineage, metrics: Metrics) -> dict[str, object]:
    intervals = {name: {"value": score.value, "low": score.low, "high": score.high} for name, score in metrics.headline.items()}
    return {
        **lineage.tags,
        "retune.test_digest": metrics.test_digest,
        "retune.dvc_lock": json.dumps(lineage.hashes, sort_keys=True),
        "retune.metrics": json.dumps(intervals),
    }


def describe(lineage: Lineage, metrics: Metrics) -> str:
    """Return a one-paragraph description of the version; its verdict is appended when it is judged."""
    headline = metrics.headline.items()
    scores = ", ".join(f"{name} {score.value:.3f} (95 % interval {score.low:.3f}–{score.high:.3f})" for name, score in headline)
    dirty = f" with {lineage.dirty} uncommitted files" if lineage.dirty else ""
    return (
        f"Fine-tuned from {cell(lineage.base_source)} on data {lineage.data_digest[:12]}. On {metrics.rows} test rows: {scores}."
        f" Made by commit {lineage.git_commit[:12] or 'none'}{dirty}."
    )
