"""Artifacts of a version's run, disk usage, and deletion.

`delete_version` is the only function that deletes a version together with its runs and files.
"""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from components.core.errors import NotFound, RetuneError
from components.mlflow_store.connection import all_pages, connect, if_exists, local_folder, translated_errors
from components.mlflow_store.registry.package import size_of
from components.mlflow_store.registry.versions import COMPLETE, Version, delete, records


def models(uri: str) -> list[str]:
    """Return the names of all registered models, sorted."""
    with translated_errors(uri):
        return sorted(model.name for model in all_pages(connect(uri).search_registered_models))


def registration_times(uri: str, name: str) -> dict[int, datetime]:
    """Return the registration time (UTC) of each version."""
    with translated_errors(uri):
        return {
            int(record.version): datetime.fromtimestamp((record.creation_timestamp or 0) / 1_000, UTC)
            for record in records(connect(uri), name)
        }


def artifact(uri: str, version: Version, path: str) -> Path:
    """Return a file or folder of the artifacts of a version's run; read-only.

    Raises:
        NotFound: the run or the artifact does not exist any more.
    """
    try:
        local_path = download_artifacts(run_id=version.run_id, artifact_path=path, tracking_uri=uri)
    except (MlflowException, OSError):
        local_path = ""
    if not local_path or not Path(local_path).exists():
        raise NotFound(f"{version.uri}: its run {version.run_id or '(none)'} has no artifact {path}; it was deleted or recorded elsewhere")
    return Path(local_path)


def read_json(uri: str, version: Version, path: str) -> dict[str, Any]:
    """Return a JSON artifact of a version's run; raise NotFound like `artifact`."""
    content: dict[str, Any] = json.loads(artifact(uri, version, path).read_text(encoding="utf-8"))
    return content


def sizes(uri: str, version: Version) -> tuple[int, int]:
    """Return the size in bytes of a version's package and of its run's artifacts; 0 if they are not local."""
    with translated_errors(uri):
        package, run = _local_folders(connect(uri), version)
    return size_of(package) if package else 0, size_of(run) if run else 0


def delete_version(uri: str, version: Version) -> None:
    """Delete a version, its package and its runs; the version goes last, so that an interrupted deletion can be repeated.

    Deleted runs stay in MLflow's trash until `mlflow gc`. Local artifacts are removed here; those of a server by the server's own
    `mlflow gc`.

    Raises:
        RetuneError: it has an alias.
    """
    with translated_errors(uri):
        client = connect(uri)
        if version.aliases:
            raise RetuneError(f"{version.uri} is not deleted: it is {', '.join(version.aliases)}")
        if version.complete:
            client.delete_model_version_tag(version.name, str(version.number), COMPLETE)
        folders = _local_folders(client, version)
        if model_id := _logged_model(client, version):
            client.delete_logged_model(model_id)
        _delete_run(client, version.run_id)
        for folder in folders:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
        delete(client, version)


def _local_folders(client: MlflowClient, version: Version) -> tuple[Path | None, Path | None]:
    """Return the local folders of the package and of the run's artifacts; None for a remote or missing one."""
    model_id = _logged_model(client, version)
    package = if_exists(client.get_logged_model, model_id) if model_id else None
    run = if_exists(client.get_run, version.run_id) if version.run_id else None
    return local_folder(package.artifact_location if package else ""), local_folder(run.info.artifact_uri if run else "")


def _logged_model(client: MlflowClient, version: Version) -> str | None:
    source = str(client.get_model_version(version.name, str(version.number)).source or "")
    return source.removeprefix("models:/") if source.startswith("models:/m-") else None


def _delete_run(client: MlflowClient, run_id: str) -> None:
    run = if_exists(client.get_run, run_id)
    if run is None or run.info.lifecycle_stage == "deleted":
        return
    for child in all_pages(client.search_runs, [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'"):
        _delete_run(client, child.info.run_id)
    client.delete_run(run_id)
