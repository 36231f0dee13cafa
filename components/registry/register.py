"""A recorded candidate into the registry, once: the same model and data give the same version.

Reads the workspace; writes a package into MLflow's artifacts and a version into its registry.
"""

import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.exceptions import MlflowException

from components.artifacts.lineage import Lineage
from components.artifacts.metrics import Metrics
from components.errors import Unavailable
from components.identity import digest_folder
from components.registry import package
from components.registry.versions import ADAPTER, BASE_SOURCE, CHALLENGER, COMPLETE, KEY, PACKAGE, WEIGHTS, Version, delete, find, search
from components.store import alone, as_default, connect, experiment, reaching, tags_of

log = logging.getLogger(__name__)

# name in the package: file in the workspace, where it is there
EXTRAS = {"dvc_lock": "dvc.lock", "dvc_stages": "dvc.yaml", "params": "params.yaml"}
_STORES = " Stores what was learnt, without the base, which is merged in when it is loaded."


def register(
    workspace: Path,
    uri: str,
    *,
    run_id: str,
    key: str,
    lineage: Lineage,
    code: Path = package.CODE,
) -> Version:
    """Register the workspace's model under `lineage.model`; `run_id` and `key` are those of its recorded run.

    A version with this key is returned as it is; one that an earlier, killed call left incomplete is replaced. A version counts
    once its package was read back: the tag `retune.complete` is last. A new version is the `challenger`, until it is judged.

    Raises:
        Unavailable: the store is busy, or what it holds is not what was sent.
    """
    name = lineage.model
    with reaching(uri), alone(uri, f"register {name}"):
        client = connect(uri)
        if (known := whole_version(client, name, key)) is not None:
            log.info("registered before as version %d", known.number)
            if (ADAPTER in known.tags) != ((workspace / "models/trained" / package.ADAPTER).is_dir()):
                log.warning(
                    "version %d stores %s, and stays as it is: train.lora_registered is about new versions, and this is the same model",
                    *(known.number, "an adapter" if ADAPTER in known.tags else "the whole model"),
                )
            return known
        model_id, digests = _upload(client, uri, workspace, name, key, run_id, code)
        metrics = Metrics.read(workspace / "reports/evaluation")
        tags = {KEY: key, **_tags(lineage, metrics), **digests}
        description = describe(lineage, metrics) + (_STORES if ADAPTER in digests else "")
        number = create_version(client, uri, name, model_id, run_id, tags, description)
        client.set_model_version_tag(name, str(number), COMPLETE, "true")
        client.set_registered_model_alias(name, CHALLENGER, str(number))  # after it: who has an alias is never replaced
        client.set_tag(run_id, "retune.version", str(number))
        log.info("registered %s as version %d", name, number)
        return replace(find(client, name, number), created=True)


def whole_version(client: MlflowClient, name: str, key: str) -> Version | None:
    """Return the version of a candidate that was registered whole; one that was cut short is deleted."""
    for known in (version for version in search(client, name) if version.key == key):
        if known.complete:
            return known
        log.warning("version %d of the same candidate is incomplete: replaced", known.number)
        delete(client, known)
    return None


def _upload(client: MlflowClient, uri: str, workspace: Path, name: str, key: str, run_id: str, code: Path) -> tuple[str, dict[str, str]]:
    """Build the package and send it; return MLflow's id of it and its digests as tags."""
    stored = package.to_store(workspace / "models/trained")

    def build(built: Path, ids: Mapping[str, str]) -> None:
        extras = {label: workspace / file for label, file in EXTRAS.items() if (workspace / file).exists()}
        extras["questions"] = package.write_questions(workspace, built.with_name("questions.parquet"))
        package.build(built, stored, extras, ids, code)

    model_id, whole = send_package(client, uri, name, key, run_id, build)
    digests = {WEIGHTS: digest_folder(workspace / "models/trained/model"), PACKAGE: whole}
    return model_id, digests | ({ADAPTER: digest_folder(stored)} if stored.name == package.ADAPTER else {})


def send_package(
    client: MlflowClient, uri: str, name: str, key: str, run_id: str, build: Callable[[Path, Mapping[str, str]], None]
) -> tuple[str, str]:
    """Send the package that `build` writes into a folder under MLflow's ids, and read it back; return its id and its fingerprint.

    What an earlier, killed call sent of the same candidate is deleted.

    Raises:
        Unavailable: what is stored differs from what was sent.
    """
    place = experiment(client, uri, name)
    for torn in client.search_logged_models([place], filter_string=f"tags.`{KEY}` = '{key}'"):
        client.delete_logged_model(torn.model_id)
    logged = client.create_logged_model(place, name=_model_name(name), source_run_id=run_id, tags={KEY: key})
    with tempfile.TemporaryDirectory(prefix="retune-") as folder:
        built = Path(folder) / "package"
        build(built, {"artifact_path": logged.artifact_location, "run_id": run_id, "model_id": logged.model_id})
        whole = package.fingerprint(built)
        client.log_model_artifacts(logged.model_id, str(built))
    stored = fetch(client, uri, f"models:/{logged.model_id}")
    if package.fingerprint(stored) != whole:
        raise Unavailable(f"the package in {stored} is not what was sent; is the disk full? Nothing was registered")
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged.model_id, whole


def fetch(client: MlflowClient, uri: str, place: str) -> Path:
    """Return a folder with the package stored at `place`: the stored one itself where the store is local.

    `models:/` URIs are resolved here, since MLflow's own resolution asks the store that is set globally.
    """
    if place.startswith("models:/"):
        place = str(client.get_logged_model(place.removeprefix("models:/")).artifact_location)
    return Path(download_artifacts(artifact_uri=place, tracking_uri=uri, registry_uri=uri))


def create_version(
    client: MlflowClient, uri: str, name: str, model_id: str, run_id: str, tags: Mapping[str, object], description: str
) -> int:
    """Make a version of the package `model_id`, and the registered model where it is the first; return its number."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    fitting = {tag.key: tag.value for tag in tags_of(tags)}
    source = f"models:/{model_id}"
    with as_default(uri):  # resolving that source asks the global store
        made = client.create_model_version(name, source, run_id=run_id, tags=fitting, description=description, model_id=model_id)
    return int(made.version)


def _model_name(name: str) -> str:
    return "".join("_" if letter in "/:.%\"'" else letter for letter in name)  # what MLflow forbids in a logged model's name


def _tags(lineage: Lineage, metrics: Metrics) -> dict[str, object]:
    intervals = {name: {"value": one.value, "low": one.low, "high": one.high} for name, one in metrics.headline.items()}
    return {
        "retune.candidate": lineage.candidate,
        "retune.git_commit": lineage.git_commit,
        "retune.dirty": lineage.dirty,
        "retune.data_digest": lineage.data_digest,
        BASE_SOURCE: lineage.base_source,
        "retune.base_digest": lineage.base_digest,
        "retune.test_digest": metrics.test_digest,
        "retune.flow_run": lineage.flow_run,
        "retune.dvc_lock": json.dumps(lineage.hashes, sort_keys=True),
        "retune.metrics": json.dumps(intervals),
    }


def describe(lineage: Lineage, metrics: Metrics) -> str:
    """Return one paragraph on what the version is; its verdict is added when it is judged."""
    scores = ", ".join(f"{name} {one.value:.3f} (95 % interval {one.low:.3f}–{one.high:.3f})" for name, one in metrics.headline.items())
    dirty = f" with {lineage.dirty} uncommitted files" if lineage.dirty else ""
    return (
        f"Fine-tuned from {lineage.base_source} on data {lineage.data_digest[:12]}. On {metrics.rows} test rows: {scores}."
        f" Made by commit {lineage.git_commit[:12] or 'none'}{dirty}."
    )
