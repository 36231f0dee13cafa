"""Find what must be kept: versions that production can reach, here or in other environments, and the DVC hashes of kept items.

A hash counts as referred to if it occurs in any dvc.lock or .dvc file of a workspace, of any commit or of the staged files of
the repository, wherever in it the project is: better to keep too much than too little.
"""

import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from components.core.documents import read_yaml
from components.core.errors import BadParams, NotFound, RetuneError, Unavailable
from components.mlflow_store import registry
from components.mlflow_store.registry import artifact_access
from components.mlflow_store.registry.ledger_head import join_faults
from components.mlflow_store.registry.versions import ADAPTER, BASE_SOURCE, KEY, PROMOTED
from components.model.base_resolver import REGISTERED
from flows.audit.registered_model import RegisteredModel
from flows.dvc_adapter.cache import object_path
from flows.project.checkout import checkouts
from flows.project.git import git, has_repository
from flows.settings import EnvironmentSettings, read_settings

_HASH = re.compile(r"\b[0-9a-f]{32}(?:\.dir)?\b")
_POINTERS = (":/dvc.lock", ":/*/dvc.lock", ":/*.dvc")  # in the whole repository; git's `*` also matches slashes
_IN_WORKSPACE = ("dvc.lock", "models/*/dvc.lock", "*.dvc", "data/**/*.dvc", "models/**/*.dvc")
_DAY = 86_400  # seconds


def reasons(model: RegisteredModel, keep: int) -> dict[int, str]:
    """Return why each kept version is kept; the `keep` newest need no other reason.

    Raises:
        NotFound: there is a champion, but the ledger is missing.
    """
    kept = {version.number: f"one of the newest {keep}" for version in model.versions[max(len(model.versions) - keep, 0) :]}
    kept |= {version.number: "not registered by Retune" for version in model.versions if KEY not in version.tags}
    for request in model.requests:
        if request.is_open():
            waiting = (request.version, request.expected, request.anchor)
            kept |= {number: "waits for approval, or is the reference of a waiting version" for number in waiting if number}
    kept |= {version.number: "was champion" for version in model.versions if PROMOTED in version.tags}
    for entry in model.entries:
        kept |= {number: "in the ledger" for number in (entry.version, entry.previous, entry.anchor) if number is not None}
    kept |= {version.number: f"is {', '.join(version.aliases)}" for version in model.versions if version.aliases}
    registered = {version.number for version in model.versions}
    return {number: why for number, why in sorted(kept.items()) if number in registered}


@dataclass(frozen=True)
class RemoteModel:
    """A model in another environment, and why each of its candidates must be kept, by key (the same in every registry)."""

    environment: str
    model: RegisteredModel
    reasons: dict[str, str]

    @property
    def kept(self) -> list[registry.Version]:
        """The versions of that environment that must be kept, with all their inputs."""
        return [version for version in self.model.versions if version.key in self.reasons]

    def here(self, model: RegisteredModel) -> dict[int, str]:
        """Return why versions of the same model in this project's registry must be kept, by number."""
        keys = {version.number: version.key for version in model.versions if version.key in self.reasons}
        return {number: f"{self.reasons[key]} in {self.environment}" for number, key in keys.items()}


def remote_models(project: Path, name: str) -> list[RemoteModel]:
    """Return the model `name` of each environment, whose versions are kept for rebuilds and comparisons; changes nothing.

    Raises:
        Unavailable: an environment is unreachable, so its production versions are unknown.
        BadParams: RETUNE_ENVIRONMENTS is not valid.
    """
    return [_remote_model(environment, settings, project, name) for environment, settings in read_settings(project).environments.items()]


def _remote_model(environment: str, settings: EnvironmentSettings, project: Path, name: str) -> RemoteModel:
    try:
        model = RegisteredModel(name, project, settings.mlflow, settings.ledger, tuple(registry.versions(settings.mlflow, name)))
        if faults := model.ledger_faults():
            raise RetuneError(f"its ledger was changed: {join_faults(faults)}")
        return RemoteModel(environment, model, _kept_candidates(model))
    except RetuneError as error:
        raise Unavailable(
            f"the environment {environment} is unreachable, so its production versions are unknown and nothing is deleted; "
            f"if it no longer exists, remove it from RETUNE_ENVIRONMENTS: {error}"
        ) from error


def _kept_candidates(model: RegisteredModel) -> dict[str, str]:
    """Return the keys of all candidates in a ledger entry, an alias or a waiting request, with the reason."""
    reason_by_key = {entry.key: "in the ledger" for entry in model.entries}
    keys = {version.number: version.key for version in model.versions}
    reason_by_key |= {keys[number]: why for number, why in reasons(model, keep=0).items()}
    return {key: why for key, why in reason_by_key.items() if key}


def bases(models: Iterable[RegisteredModel]) -> dict[str, dict[int, str]]:
    """Return, by model, the versions that are the base of a stored adapter, which cannot be loaded without it."""
    kept: dict[str, dict[int, str]] = {}
    for version in (version for model in models for version in model.versions if ADAPTER in version.tags):
        name, _, number = version.tags.get(BASE_SOURCE, "").removeprefix(REGISTERED).rpartition("/")
        if version.tags.get(BASE_SOURCE, "").startswith(REGISTERED) and number.isdigit():
            kept.setdefault(name, {})[int(number)] = f"is the base of {version.uri}, which stores an adapter"
    return kept


def hashes_of_version(model: RegisteredModel, version: registry.Version) -> Iterator[str]:
    """Yield the DVC hashes of a version, from its tag and its run's dvc.lock."""
    yield from _HASH.findall(version.tags.get("retune.dvc_lock", ""))
    try:
        yield from _HASH.findall(artifact_access.artifact(model.uri, version, "dvc.lock").read_text(encoding="utf-8"))
    except NotFound:
        return


def workspaces(project: Path) -> list[Path]:
    """Return the project's main folder, its other workspaces, and the checkouts of scheduled runs."""
    others = sorted(path for path in (project / "var/workspaces").glob("*") if path.is_dir())
    return [project, *checkouts(project), *others]


def workspaces_of(project: Path, name: str | None) -> list[Path]:
    """Return the workspaces whose params.yaml names this model, or all; one with an unreadable params.yaml belongs to no model."""
    return [root for root in workspaces(project) if name is None or _model_of(root / "params.yaml") == name]


def _model_of(params: Path) -> str | None:
    try:
        return str(read_yaml(params)["name"])
    except (BadParams, KeyError, TypeError):
        return None


def hashes_of_workspaces(project: Path) -> Iterator[str]:
    """Yield the hashes in every workspace's dvc.lock and .dvc files."""
    for root in workspaces(project):
        for path in (path for pattern in _IN_WORKSPACE for path in root.glob(pattern)):
            if path.is_file():
                yield from _HASH.findall(path.read_text(encoding="utf-8", errors="replace"))


def hashes_of_git(project: Path) -> Iterator[str]:
    """Yield the hashes in every dvc.lock and .dvc file that is staged or reachable from a branch, tag, stash, experiment or reflog.

    Raises:
        RetuneError: git fails; then nothing may be deleted.
    """
    if not has_repository(project):
        return
    # These are git's defaults; user settings must not hide a first commit, a merge or another folder.
    log = ["-c", "log.showRoot=true", "log", "--all", "--reflog", "--full-history", "--diff-merges=separate", "--no-relative"]
    committed = _git(project, [*log, "--no-renames", "--raw", "--no-abbrev", "--format=", "--", *_POINTERS]).splitlines()
    staged = _git(project, ["ls-files", "--stage", "--", *_POINTERS]).splitlines()
    blobs = {line.split()[3] for line in committed if line.startswith(":")} | {line.split()[1] for line in staged}
    if existing := sorted(blob for blob in blobs if blob.strip("0")):  # a deleted file has the id 000…
        yield from _HASH.findall(_git(project, ["cat-file", "--batch"], "\n".join(existing) + "\n"))


def with_members(project: Path, digests: Iterable[str]) -> set[str]:
    """Return the hashes, and for each folder (`….dir`) those of its files if DVC's cache has the listing.

    Raises:
        RetuneError: a listing cannot be read, so its members are unknown and nothing may be deleted.
    """
    hashes = set(digests)
    for digest in [digest for digest in hashes if digest.endswith(".dir")]:
        path = object_path(project, digest)
        try:
            hashes |= {str(entry["md5"]) for entry in json.loads(path.read_text(encoding="utf-8"))} if path.is_file() else set()
        except (ValueError, TypeError, KeyError):
            raise RetuneError(
                f"{path} in DVC's cache is corrupt, so nothing is deleted: delete the file, then `dvc pull` restores it if it was pushed"
            ) from None
    return hashes


def study_of(model: RegisteredModel, version: registry.Version) -> str | None:
    """Return the search that a version's settings came from."""
    try:
        return str(artifact_access.read_json(model.uri, version, "search/best.json").get("study")) or None
    except NotFound:
        return None


def studies_here(root: Path) -> set[str]:
    """Return the search that a workspace's current model came from."""
    try:
        return {str(json.loads((root / "models/tuned/best.json").read_text(encoding="utf-8"))["study"])}
    except (OSError, ValueError, KeyError):
        return set()


def idle(path: Path, days: float) -> bool:
    """Return whether nothing at or below `path` was written for `days` days."""
    newest: float = max(file.stat().st_mtime for file in (path, *(path.rglob("*") if path.is_dir() else ())))
    return bool(time.time() - newest > days * _DAY)


def _git(project: Path, arguments: list[str], text: str | None = None) -> str:
    try:
        return git(project, *arguments, stdin=text)
    except RetuneError as error:
        raise RetuneError(f"{error}; nothing is deleted") from None
