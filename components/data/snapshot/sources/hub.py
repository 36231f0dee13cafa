"""hub://ORG/NAME@REVISION: the data files of a dataset on the Hugging Face hub, as they were at a commit.

With #FILES, a glob, a folder or a file of the repository. Only data files and their description are downloaded, into the hub's own cache;
no script is, and none is run. HF_HUB_OFFLINE=1 takes what lies in the cache; HF_TOKEN opens what is private.
"""

import logging
import re
from pathlib import Path
from typing import Any

from components.core.errors import BadParams, BadSource
from components.data.hub import hub_errors
from components.data.snapshot.features import CARDS
from components.data.snapshot.sources import FetchedFiles, SourceRequest
from components.data.snapshot.sources._file_selection import choose, is_glob, nothing
from components.data.snapshot.tables import FORMATS, format_of

log = logging.getLogger(__name__)

SETTINGS: frozenset[str] = frozenset()

_ADDRESS = re.compile(r"(?P<repository>[\w.-]+(/[\w.-]+)?)@(?P<revision>[^#@\s]+)(#(?P<files>.+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def bring(asked: SourceRequest, folder: Path) -> FetchedFiles:
    """Download the files into the hub's cache, or find them there; they are read where they lie, and `folder` stays empty.

    Raises:
        BadParams: the address has no repository or no revision.
        BadSource: the hub knows no such thing, or it is not in the cache while the hub is switched off; or there is no data file.
        Unavailable: the hub is out of reach.
    """
    found = _parse(asked)
    wanted = found["files"] or ""
    with hub_errors(f"{asked.address}:", BadSource):
        commit, home = _download(asked, found["repository"], found["revision"], _patterns(wanted))
    there = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    names = choose(there, wanted)
    if not names:
        raise BadSource(f"{asked.address}: {nothing(there)}")
    kind = format_of([home / name for name in names], asked.address)
    pinned = f"hub://{found['repository']}@{commit}"
    log.info("%d files of %s", len(names), pinned)
    files = {home / name: f"{pinned}/{name}" for name in names}
    return FetchedFiles(files, f"{pinned}#{wanted}" if wanted else pinned, kind, [home])


def look(asked: SourceRequest) -> str:
    """Return how many files there are, and at which commit; they are downloaded into the hub's cache. Raises as `bring` does."""
    brought = bring(asked, Path())
    return f"{len(brought.files)} file(s) of {brought.source}, {sum(path.stat().st_size for path in brought.files) / 2**20:.1f} MiB"


def _parse(asked: SourceRequest) -> re.Match[str]:
    found = _ADDRESS.fullmatch(asked.place)
    if found is None:
        raise BadParams(
            f"params.yaml: snapshot.source {asked.address}: expected hub://ORG/NAME@REVISION, or hub://ORG/NAME@REVISION#FILES with a "
            "glob; the revision, a commit, a tag or a branch, cannot be left out"
        )
    return found


def _patterns(wanted: str) -> list[str]:
    """Return what is downloaded: nothing that is no data."""
    if wanted:
        return [wanted.replace("**/", "*")] if is_glob(wanted) else [wanted, f"{wanted.rstrip('/')}/*"]
    return [f"*{spelt}" for ending in FORMATS for spelt in (ending, ending.upper())]


def _download(asked: SourceRequest, repository: str, revision: str, patterns: list[str]) -> tuple[str, Path]:
    """Return the commit, and the folder of its files."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import LocalEntryNotFoundError

    token, named = asked.environment.get("HF_TOKEN"), revision
    if not _COMMIT.fullmatch(revision) and not is_offline_mode():
        # Asked first: snapshot_download would answer with what the branch was when it was last in reach.
        revision = str(HfApi(token=token).repo_info(repository, repo_type="dataset", revision=revision).sha)
    where: dict[str, Any] = {
        "repo_type": "dataset",
        "revision": revision,
        "cache_dir": asked.environment.get("HF_HUB_CACHE"),
        "token": token,
    }
    home: str = snapshot_download(repository, allow_patterns=patterns, **where)
    try:
        snapshot_download(repository, allow_patterns=list(CARDS), **where)
    except LocalEntryNotFoundError:
        if not is_offline_mode():
            raise
        log.warning(
            "the hub is switched off, and %s are not in its cache: classes that stand as numbers may keep them", " and ".join(CARDS)
        )
    commit = Path(home).name
    if is_offline_mode() and named != commit:
        log.warning("the hub is switched off: %s is taken as it was when it was last downloaded, commit %s", asked.address, commit)
    return commit, Path(home)
