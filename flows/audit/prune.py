"""Delete versions that were never in production, with their MLflow data, DVC objects and search journals.

Reads the registry and the ledger, here and of every environment, git's history and every workspace. `plan` only reads; `prune` plans again
under the locks before it deletes.
"""

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.core.errors import BadInput, RetuneError
from components.mlflow_store import registry
from components.mlflow_store.connection import store_lock
from components.mlflow_store.registry import artifact_access
from components.mlflow_store.registry.ledger_head import join_faults
from components.mlflow_store.registry.package import size_of
from flows.audit import retention
from flows.audit.registered_model import RegisteredModel, open_model, open_models
from flows.dvc_adapter.cache import object_path
from flows.dvc_adapter.config import cache_folder
from flows.project.run_locks import folder_lock
from flows.project.workspace import open_project

log = logging.getLogger(__name__)

IDLE_DAYS = 7.0  # after which an interrupted search or training counts as abandoned
Pairs = Sequence[tuple[RegisteredModel, registry.Version]]


@dataclass(frozen=True)
class Deletion:
    """One item to delete; `bytes` is 0 if it is not on this machine."""

    kind: str
    name: str
    bytes: int
    path: Path | None = None
    version: registry.Version | None = None
    uri: str | None = None


@dataclass(frozen=True)
class PrunePlan:
    """The items to delete, the versions to keep with the reasons, and notes on other items that are left alone."""

    doomed: tuple[Deletion, ...]
    kept: dict[str, dict[int, str]]
    left: tuple[str, ...]

    def totals(self) -> dict[str, tuple[int, int]]:
        """Return count and bytes of each kind."""
        kinds = dict.fromkeys(item.kind for item in self.doomed)
        by_kind = {kind: [item for item in self.doomed if item.kind == kind] for kind in kinds}
        return {kind: (len(items), sum(item.bytes for item in items)) for kind, items in by_kind.items()}

    def as_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        totals = {kind: {"count": count, "bytes": size} for kind, (count, size) in self.totals().items()}
        items = [{"kind": item.kind, "name": item.name, "bytes": item.bytes} for item in self.doomed]
        return {"totals": totals, "things": items, "kept": self.kept, "left": list(self.left)}


def prune(name: str | None, keep: int, idle_days: float = IDLE_DAYS, *, really: bool = False, start: Path | None = None) -> PrunePlan:
    """Return what can be deleted of one model, or of all; with `really` plan again without runs or promotions, and delete it.

    Files are deleted before their version, so that the next call finds what an interrupted one left.

    Raises:
        BadInput: `keep` is negative.
        NotFound: no such model; or the ledger is missing, so production versions are unknown.
        Unavailable: a run is active in a workspace, a promotion is in progress, or an environment is unreachable.
    """
    if keep < 0:
        raise BadInput(f"--keep is {keep}: expected the number of newest versions to keep, 0 or more")
    if name is not None:
        open_model(name, start=start)
    if not really:
        return plan(name, keep, idle_days, start)
    with lock_everything(start):
        deletions = plan(name, keep, idle_days, start)
        for item in sorted(deletions.doomed, key=lambda item: item.version is not None):
            _delete(item)
    return deletions


def plan(name: str | None, keep: int, idle_days: float, start: Path | None = None) -> PrunePlan:
    """Return what can be deleted; versions of other models than `name` and unfinished work in their workspaces are kept."""
    project, models = open_project(start).project, open_models(start)
    for model in models:
        if faults := model.ledger_faults():  # versions missing from it would be deleted
            raise RetuneError(
                f"the ledger was changed, so nothing is deleted: {join_faults(faults)}; see `retune history {model.name} --verify`"
            )
    others = {model.name: retention.remote_models(project, model.name) for model in models}
    bases = retention.bases(models)
    chosen = [model for model in models if name in (None, model.name)]
    reasons = {model.name: kept_versions(model, keep, others[model.name], bases.get(model.name, {})) for model in chosen}
    local = [(model, version) for model in models for version in model.versions]
    deleted = [(model, version) for model, version in local if model.name in reasons and version.number not in reasons[model.name]]
    remote = [(other.model, version) for remotes in others.values() for other in remotes for version in other.kept]
    kept = [*(pair for pair in local if pair not in deleted), *remote]
    objects, skipped = dvc_objects(project, deleted, kept)
    sizes = [sum(artifact_access.sizes(model.uri, version)) for model, version in deleted]
    doomed = [
        *(Deletion("version", f"{v.name} {v.number}", size, None, v, m.uri) for (m, v), size in zip(deleted, sizes, strict=True)),
        *predictions(project, deleted, kept),
        *objects,
        *journals(project, deleted, kept),
        *unfinished(retention.workspaces_of(project, name), [*local, *remote], idle_days),
    ]
    return PrunePlan(tuple(doomed), reasons, tuple(skipped))


def kept_versions(model: RegisteredModel, keep: int, others: Sequence[retention.RemoteModel], bases: Mapping[int, str]) -> dict[int, str]:
    """Return why each kept version of a model is kept: reachable here or in other environments, or one of the `bases`."""
    kept = {version.number: bases[version.number] for version in model.versions if version.number in bases}
    for other in others:
        kept |= other.here(model)
    return dict(sorted((kept | retention.reasons(model, keep)).items()))


def predictions(project: Path, deleted: Pairs, kept: Pairs) -> Iterator[Deletion]:
    """Yield the cached predictions of deleted versions, unless a kept version has the same model."""
    kept_keys = {version.key[:32] for _, version in kept}
    for model, version in deleted:
        if version.key and version.key[:32] not in kept_keys:
            for path in sorted((project / "var/predictions" / model.name).glob(f"{version.key[:32]}-*")):
                yield Deletion("predictions", path.name, path.stat().st_size, path)


def dvc_objects(project: Path, deleted: Pairs, kept: Pairs) -> tuple[list[Deletion], list[str]]:
    """Return the objects of DVC's cache that only deleted versions use, and why none if the cache is shared."""
    cache = cache_folder(project)
    if not cache.is_relative_to(project):
        return [], [f"DVC's cache {cache} is shared with other projects: run `dvc gc` for all of them together"]
    candidates = retention.with_members(project, [digest for pair in deleted for digest in retention.hashes_of_version(*pair)])
    if not candidates:
        return [], []
    used = [digest for pair in kept for digest in retention.hashes_of_version(*pair)]
    referenced = retention.with_members(project, [*used, *retention.hashes_of_workspaces(project), *retention.hashes_of_git(project)])
    # A folder's listing is deleted last: after a kill, only it still names the folder's files.
    unreferenced = sorted(candidates - referenced, key=lambda digest: (digest.endswith(".dir"), digest))
    paths = [(digest, object_path(project, digest)) for digest in unreferenced]
    return [Deletion("DVC object", digest, path.stat().st_size, path) for digest, path in paths if path.is_file()], []


def journals(project: Path, deleted: Pairs, kept: Pairs) -> Iterator[Deletion]:
    """Yield the journals of searches that only deleted versions came from."""
    searches = studies(deleted) - studies(kept)
    for root in retention.workspaces(project):
        for path in sorted((root / "var/optuna").glob("*.log")):
            if path.stem in searches - retention.studies_here(root):
                yield from search_files(root, path)


def search_files(root: Path, journal: Path) -> Iterator[Deletion]:
    """Yield the journal of a search, and what an automatic search keeps beside it."""
    for folder in (root / "var" / name / journal.stem for name in ("auto", "progress")):
        if folder.is_dir():
            yield Deletion("search results", journal.stem, size_of(folder), folder)
    yield Deletion("search journal", journal.stem, journal.stat().st_size, journal)


def studies(pairs: Pairs) -> set[str]:
    """Return the searches that versions came from."""
    return {study for model, version in pairs if (study := retention.study_of(model, version))}


def unfinished(roots: Sequence[Path], pairs: Pairs, idle_days: float) -> Iterator[Deletion]:
    """Yield abandoned searches that none of the versions came from, and checkpoints of abandoned trainings."""
    used = studies(pairs)
    for root in roots:
        for path in sorted((root / "var/optuna").glob("*.log")):
            if path.stem not in used | retention.studies_here(root) and retention.idle(path, idle_days):
                yield from search_files(root, path)
        for path in sorted((root / "var/checkpoints").glob("*")):
            if path.is_dir() and retention.idle(path, idle_days):
                yield Deletion("checkpoints", path.name, size_of(path), path)


@contextmanager
def lock_everything(start: Path | None) -> Iterator[None]:
    """Lock every workspace and every model's promotions."""
    project = open_project(start).project
    with ExitStack() as locks:
        for root in retention.workspaces(project):
            locks.enter_context(folder_lock(root))
        for model in open_models(start):
            locks.enter_context(store_lock(model.uri, f"aliases {model.name}", timeout=30))
        yield


def _delete(item: Deletion) -> None:
    if item.version is not None and item.uri is not None:
        artifact_access.delete_version(item.uri, item.version)
    elif item.path is not None and item.path.is_dir():
        shutil.rmtree(item.path, ignore_errors=True)
    elif item.path is not None:
        item.path.unlink(missing_ok=True)
    log.info("deleted %s %s, %d bytes", item.kind, item.name, item.bytes)
