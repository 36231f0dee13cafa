"""What MLflow holds of a version beside its tags: the artifacts of its run, and how much room it all takes.

Reads them where they lie; `forget` is the one way to delete a version with everything that belongs to it.
"""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlparse

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from components.core.errors import NotFound, RetuneError
from components.mlflow_store.connection import connect, translated_errors
from components.mlflow_store.registry.versions import COMPLETE, Version, delete

_GONE = "RESOURCE_DOES_NOT_EXIST"


def models(uri: str) -> list[str]:
    """Return the names of all registered models, sorted."""
    with translated_errors(uri):
        client, names, token = connect(uri), list[str](), None
        while True:
            page = client.search_registered_models(max_results=1_000, page_token=token)
            names += [str(model.name) for model in page]
            token = page.token
            if not token:
                return sorted(names)


def registration_times(uri: str, name: str) -> dict[int, datetime]:
    """Return the moment (UTC) at which each version was registered."""
    with translated_errors(uri):
        client, moments, token = connect(uri), dict[int, datetime](), None
        quoted = name.replace("'", "\\'")
        while True:
            page = client.search_model_versions(f"name='{quoted}'", max_results=1_000, page_token=token)
            moments |= {int(one.version): datetime.fromtimestamp((one.creation_timestamp or 0) / 1_000, UTC) for one in page}
            token = page.token
            if not token:
                return moments


def artifact(uri: str, version: Version, path: str) -> Path:
    """Return a file or folder among the artifacts of the run that a version was recorded as; to be read only.

    Raises:
        NotThere: the run or the artifact is gone.
    """
    try:
        found = download_artifacts(run_id=version.run_id, artifact_path=path, tracking_uri=uri)
    except (MlflowException, OSError):
        found = ""
    if not found or not Path(found).exists():
        raise NotFound(f"{version.uri}: its run {version.run_id or '(none)'} has no artifact {path}; it was deleted or recorded elsewhere")
    return Path(found)


def sizes(uri: str, version: Version) -> tuple[int, int]:
    """Return how many bytes the package of a version and the artifacts of its run take; 0 where they are not on this machine."""
    with translated_errors(uri):
        return tuple(_bytes(place) for place in _places(connect(uri), version))  # type: ignore[return-value]


def delete_version(uri: str, version: Version) -> None:
    """Delete a version, its package and its runs; the version itself goes last, so that what a kill leaves is found again.

    MLflow keeps the deleted runs' metadata in its trash (`mlflow gc` empties it). Artifacts on this machine are removed; those of a
    server are removed by the server's own `mlflow gc`.

    Raises:
        RetuneError: it has an alias.
    """
    with translated_errors(uri):
        client = connect(uri)
        if version.aliases:
            raise RetuneError(f"{version.uri} is not deleted: it is {', '.join(version.aliases)}")
        if version.complete:
            client.delete_model_version_tag(version.name, str(version.number), COMPLETE)
        places = _places(client, version)
        if model_id := _logged_model(client, version):
            client.delete_logged_model(model_id)
        _delete_run(client, version.run_id)
        for place in places:
            if place is not None:
                shutil.rmtree(place, ignore_errors=True)
        delete(client, version)


def _places(client: MlflowClient, version: Version) -> tuple[Path | None, Path | None]:
    """Return the local folders of the package and of the run's artifacts."""
    model_id = _logged_model(client, version)
    try:
        package_uri = str(client.get_logged_model(model_id).artifact_location) if model_id else ""
    except MlflowException as error:
        package_uri = _unless_gone(error)
    try:
        run_uri = str(client.get_run(version.run_id).info.artifact_uri) if version.run_id else ""
    except MlflowException as error:
        run_uri = _unless_gone(error)
    return _local(package_uri), _local(run_uri)


def _unless_gone(error: MlflowException) -> str:
    if error.error_code != _GONE:
        raise error
    return ""


def _logged_model(client: MlflowClient, version: Version) -> str | None:
    source = str(client.get_model_version(version.name, str(version.number)).source or "")
    return source.removeprefix("models:/") if source.startswith("models:/m-") else None


def _delete_run(client: MlflowClient, run_id: str) -> None:
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        _unless_gone(error)
        return
    if run.info.lifecycle_stage == "deleted":
        return
    children = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'", max_results=1_000)
    for child in children:
        _delete_run(client, child.info.run_id)
    client.delete_run(run_id)


def _local(uri: str) -> Path | None:
    parsed = urlparse(uri)
    if not uri or parsed.scheme not in ("", "file"):
        return None
    return Path(unquote(parsed.path))


def _bytes(folder: Path | None) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder and folder.is_dir() else 0
