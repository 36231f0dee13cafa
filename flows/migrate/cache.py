"""All that DVC keeps here, sent to the shared remote: also what only earlier versions hang on, which `dvc push` would leave."""

import logging
from pathlib import Path
from typing import Any

from components.core.errors import NotFound, RetuneError, Unavailable
from flows.dvc_adapter.config import share_remote
from flows.settings import read_settings

log = logging.getLogger(__name__)

EMBEDDED = "local"  # the remote below var/


def count(project: Path) -> int:
    """Return how many objects DVC keeps here."""
    with _quiet(project) as repo:
        return len({one for _, found in _kept(repo) for one in found})


def push(project: Path) -> int:
    """Send every object of the cache and of the embedded remote, and the run cache; return how many are there now.

    Raises:
        NotFound: no shared remote is named.
        RetuneError: an object is damaged here, or did not arrive.
        Unavailable: the remote does not answer, or refuses us.
    """
    settings = read_settings(project)
    if not settings.dvc_remote:
        raise NotFound("RETUNE_DVC_REMOTE is not set: expected where DVC pushes to, s3://BUCKET/PREFIX")
    share_remote(project / ".dvc/config.local", settings)
    with _quiet(project) as repo:
        try:
            return _push(repo)
        except (OSError, ImportError) as error:
            raise Unavailable(f"DVC's remote {settings.dvc_remote} cannot be used: {' '.join(str(error).split())}") from None


def _push(repo: Any) -> int:
    remote, sent = repo.cloud.get_remote_odb(None, "push"), set()
    for odb, objects in _kept(repo):
        done = repo.cloud.transfer(odb, remote, objects, verify=True)
        if done.failed:
            raise RetuneError(f"{len(done.failed)} of {len(objects)} objects of {odb.path} did not arrive; run again to go on")
        sent |= objects
    repo.stage_cache.push(None)
    there = set(remote.oids_exist([one.value for one in sent]))
    if missing := {one.value for one in sent} - there:
        raise RetuneError(f"{len(missing)} of {len(sent)} of DVC's objects are not in the remote, first {min(missing)}")
    return len(sent)


def _kept(repo: Any) -> list[tuple[Any, set[Any]]]:
    """Return where objects are kept here, each with its objects."""
    from dvc_data.hashfile.hash_info import HashInfo

    places = [repo.cache.local]
    if EMBEDDED in repo.config["remote"]:
        places.append(repo.cloud.get_remote_odb(EMBEDDED))
    return [(odb, {HashInfo(odb.hash_name, oid) for oid in odb.all()} if odb.fs.exists(odb.path) else set()) for odb in places]


def _quiet(project: Path) -> Any:
    from dvc.repo import Repo

    for chatty in ("dvc", "dvc_data", "dvc_objects", "botocore", "aiobotocore"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    return Repo(str(project))
