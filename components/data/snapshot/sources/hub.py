"""hub://ORG/NAME@REVISION: the data files of a Hugging Face dataset at a commit; #FILES selects a glob, folder or file.

Downloads only data files and dataset cards, to the hub's own cache; never downloads or runs a script. HF_HUB_OFFLINE=1 uses the cache
only; HF_TOKEN gives access to private datasets.
"""

import logging
import re
from functools import partial
from pathlib import Path

from components.core.errors import BadParams, BadSource
from components.data.hub import hub_errors
from components.data.snapshot.features import CARDS
from components.data.snapshot.sources import FetchedFiles, SourceRequest
from components.data.snapshot.sources._file_selection import choose, is_glob, no_match
from components.data.snapshot.tables import FORMATS, format_of

log = logging.getLogger(__name__)

SETTINGS: frozenset[str] = frozenset()

_ADDRESS = re.compile(r"(?P<repository>[\w.-]+(/[\w.-]+)?)@(?P<revision>[^#@\s]+)(#(?P<files>.+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def fetch(request: SourceRequest, folder: Path) -> FetchedFiles:
    """Download the files to the hub's cache and read them there; `folder` stays empty.

    Raises:
        BadParams: the address has no repository or no revision.
        BadSource: the dataset does not exist, is not cached while the hub is offline, or has no data files.
        Unavailable: the hub is unreachable.
    """
    parts = _ADDRESS.fullmatch(request.location)
    if parts is None:
        raise BadParams(
            f"params.yaml: snapshot.source {request.address}: expected hub://ORG/NAME@REVISION, or hub://ORG/NAME@REVISION#FILES with a "
            "glob; the revision (a commit, tag or branch) is required"
        )
    pattern = parts["files"] or ""
    with hub_errors(f"{request.address}:", BadSource):
        commit, home = _download(request, parts["repository"], parts["revision"], _download_patterns(pattern))
    present = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    names = choose(present, pattern)
    if not names:
        raise BadSource(f"{request.address}: {no_match(present)}")
    file_format = format_of([home / name for name in names], request.address)
    pinned = f"hub://{parts['repository']}@{commit}"
    log.info("%d files of %s", len(names), pinned)
    files = {home / name: f"{pinned}/{name}" for name in names}
    return FetchedFiles(files, f"{pinned}#{pattern}" if pattern else pinned, file_format, [home])


def describe(request: SourceRequest) -> str:
    """Return the number and size of the files, and the commit; downloads them to the hub's cache. Raises as `fetch` does."""
    fetched = fetch(request, Path())
    return f"{len(fetched.files)} file(s) of {fetched.source}, {sum(path.stat().st_size for path in fetched.files) / 2**20:.1f} MiB"


def _download_patterns(pattern: str) -> list[str]:
    if pattern:
        return [pattern.replace("**/", "*")] if is_glob(pattern) else [pattern, f"{pattern.rstrip('/')}/*"]
    return [f"*{suffix}" for extension in FORMATS for suffix in (extension, extension.upper())]


def _download(request: SourceRequest, repository: str, revision: str, patterns: list[str]) -> tuple[str, Path]:
    """Return the commit, and the folder of its files."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.constants import is_offline_mode
    from huggingface_hub.errors import LocalEntryNotFoundError

    token, requested = request.environment.get("HF_TOKEN"), revision
    if not _COMMIT.fullmatch(revision) and not is_offline_mode():
        # Resolve the branch first: if the hub is unreachable, snapshot_download would silently use the last cached commit.
        revision = str(HfApi(token=token).repo_info(repository, repo_type="dataset", revision=revision).sha)
    cache = request.environment.get("HF_HUB_CACHE")
    download = partial(snapshot_download, repository, repo_type="dataset", revision=revision, cache_dir=cache, token=token)
    home = str(download(allow_patterns=patterns))
    try:
        download(allow_patterns=list(CARDS))
    except LocalEntryNotFoundError:
        if not is_offline_mode():
            raise
        log.warning("the hub is offline and %s are not cached: class numbers may not get their names", " and ".join(CARDS))
    commit = Path(home).name
    if is_offline_mode() and requested != commit:
        log.warning("the hub is offline: using the last downloaded commit %s of %s", commit, request.address)
    return commit, Path(home)
