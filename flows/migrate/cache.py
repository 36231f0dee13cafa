"""Push all of DVC's objects to the shared remote, including those of earlier versions, which `dvc push` leaves out."""

import logging
from pathlib import Path
from typing import Any

from components.core.errors import NotFound, RetuneError, Unavailable
from flows.dvc_adapter.config import EMBEDDED, share_remote
from flows.settings import read_settings

log = logging.getLogger(__name__)


def count(project: Path) -> int:
    """Return how many objects DVC has here."""
    with _quiet(project) as repo:
        return len({digest for _, digests in _local_objects(repo) for digest in digests})


def push(project: Path) -> int:
    """Push every object of the cache and the embedded remote, and the run cache; return the number of pushed objects.

    Raises:
        NotFound: no shared remote is configured.
        RetuneError: an object is damaged or was not transferred.
        Unavailable: the remote does not answer, or rejects the credentials.
    """
    settings = read_settings(project)
    if not settings.dvc_remote:
        raise NotFound("RETUNE_DVC_REMOTE is not set: expected the URL of DVC's remote, s3://BUCKET/PREFIX")
    share_remote(project / ".dvc/config.local", settings)
    with _quiet(project) as repo:
        try:
            return _push(repo)
        except (OSError, ImportError) as error:
            raise Unavailable(f"DVC's remote {settings.dvc_remote} cannot be used: {' '.join(str(error).split())}") from None


def _push(repo: Any) -> int:
    remote, sent = repo.cloud.get_remote_odb(None, "push"), set()
    for odb, objects in _local_objects(repo):
        done = repo.cloud.transfer(odb, remote, objects, verify=True)
        if done.failed:
            raise RetuneError(f"{len(done.failed)} of {len(objects)} objects of {odb.path} were not transferred; run again to resume")
        sent |= objects
    repo.stage_cache.push(None)
    present = set(remote.oids_exist([digest.value for digest in sent]))
    if missing := {digest.value for digest in sent} - present:
        raise RetuneError(f"{len(missing)} of {len(sent)} of DVC's objects are not in the remote, first {min(missing)}")
    return len(sent)


def _local_objects(repo: Any) -> list[tuple[Any, set[Any]]]:
    """Return the local object stores with their objects."""
    from dvc_data.hashfile.hash_info import HashInfo

    stores = [repo.cache.local]
    if EMBEDDED in repo.config["remote"]:
        stores.append(repo.cloud.get_remote_odb(EMBEDDED))
    return [(odb, {HashInfo(odb.hash_name, oid) for oid in odb.all()} if odb.fs.exists(odb.path) else set()) for odb in stores]


def _quiet(project: Path) -> Any:
    from dvc.repo import Repo

    for chatty in ("dvc", "dvc_data", "dvc_objects", "botocore", "aiobotocore"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    return Repo(str(project))
