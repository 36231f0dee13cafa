"""What can be deleted without losing anything that was ever in production, and its deletion: MLflow, DVC's cache, search journals.

Reads the registry and the ledger, here and of every environment, git's history and every workspace. `look` only looks; `prune` looks again
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
from flows.audit import retention
from flows.audit.other_environments import RemoteModel, remote_models
from flows.audit.registered_model import RegisteredModel, open_model, open_models, open_project
from flows.dvc_adapter.config import cache_folder
from flows.project.run_locks import folder_lock

log = logging.getLogger(__name__)

IDLE_DAYS = 7.0  # after which a search or a training that was cut short counts as abandoned
Pairs = Sequence[tuple[RegisteredModel, registry.Version]]


@dataclass(frozen=True)
class Doomed:
    """One thing to delete; `bytes` is 0 where it does not lie on this machine."""

    kind: str
    name: str
    bytes: int
    path: Path | None = None
    version: registry.Version | None = None
    uri: str | None = None


@dataclass(frozen=True)
class PrunePlan:
    """All that would be deleted, what is kept and why, and what was left alone for another reason."""

    doomed: tuple[Doomed, ...]
    kept: dict[str, dict[int, str]]
    left: tuple[str, ...]

    def totals(self) -> dict[str, tuple[int, int]]:
        """Return count and bytes of each kind."""
        kinds = dict.fromkeys(thing.kind for thing in self.doomed)
        of = {kind: [thing for thing in self.doomed if thing.kind == kind] for kind in kinds}
        return {kind: (len(things), sum(thing.bytes for thing in things)) for kind, things in of.items()}

    def as_json(self) -> dict[str, Any]:
        """Return the plan for a program."""
        totals = {kind: {"count": count, "bytes": size} for kind, (count, size) in self.totals().items()}
        things = [{"kind": thing.kind, "name": thing.name, "bytes": thing.bytes} for thing in self.doomed]
        return {"totals": totals, "things": things, "kept": self.kept, "left": list(self.left)}


def prune(name: str | None, keep: int, idle_days: float = IDLE_DAYS, *, really: bool = False, start: Path | None = None) -> PrunePlan:
    """Return what can go of one model, or of all; `really` deletes it, looking again while no run works and nothing is promoted.

    Files go before their version, so that what a kill leaves half done is found by the next call.

    Raises:
        BadInput: `keep` is negative.
        NotThere: no such model; or the ledger is gone, without which nobody knows what was in production.
        Unavailable: a run works in a workspace of the project, a promotion is under way, or an environment cannot be reached.
    """
    if keep < 0:
        raise BadInput(f"--keep is {keep}: expected how many of the newest versions stay, 0 or more")
    if name is not None:
        open_model(name, start=start)
    if not really:
        return look(name, keep, idle_days, start)
    with quiet(start):
        found = look(name, keep, idle_days, start)
        for thing in sorted(found.doomed, key=lambda thing: thing.version is not None):
            delete(thing)
    return found


def look(name: str | None, keep: int, idle_days: float, start: Path | None = None) -> PrunePlan:
    """Return what can go; versions of other models than `name` all stay, and what was left unfinished in their workspaces."""
    project, models = open_project(start).project, open_models(start)
    for model in models:
        check_ledger(model)
    others = {model.name: remote_models(project, model.name) for model in models}
    bases = retention.bases(models)
    reasons = {
        model.name: stays(model, keep, others[model.name], bases.get(model.name, {})) for model in models if name in (None, model.name)
    }
    local = [(model, version) for model in models for version in model.versions]
    gone = [(model, version) for model, version in local if model.name in reasons and version.number not in reasons[model.name]]
    away = [(other.model, version) for known in others.values() for other in known for version in other.kept]
    kept = [*(pair for pair in local if pair not in gone), *away]
    objects, left = dvc_objects(project, gone, kept)
    doomed = [
        *(doomed_version(model, version) for model, version in gone),
        *predictions(project, gone, kept),
        *objects,
        *journals(project, gone, kept),
        *unfinished(retention.workspaces_of(project, name), [*local, *away], idle_days),
    ]
    return PrunePlan(tuple(doomed), reasons, tuple(left))


def check_ledger(model: RegisteredModel) -> None:
    """Refuse a ledger that was changed: what it no longer names would be deleted.

    Raises:
        RetuneError: with the faults.
    """
    if faults := model.ledger_faults():
        raise RetuneError(
            f"the ledger is not what was written, so nothing is deleted: {join_faults(faults)}; `retune history {model.name} --verify`"
        )


def stays(model: RegisteredModel, keep: int, others: Sequence[RemoteModel], bases: Mapping[int, str]) -> dict[int, str]:
    """Return why each version of a model that stays does: what is reached here, what other environments reach, and what are `bases`."""
    said = {version.number: bases[version.number] for version in model.versions if version.number in bases}
    for other in others:
        said |= other.here(model)
    return dict(sorted((said | retention.reasons(model, keep)).items()))


def doomed_version(model: RegisteredModel, version: registry.Version) -> Doomed:
    """Return a version, with the bytes of its package and of its run's artifacts."""
    return Doomed(
        "version", f"{version.name} {version.number}", sum(artifact_access.sizes(model.uri, version)), version=version, uri=model.uri
    )


def predictions(project: Path, gone: Pairs, kept: Pairs) -> Iterator[Doomed]:
    """Yield the cached answers of versions that go; an equal model that stays keeps them."""
    staying = {version.key[:32] for _, version in kept}
    for model, version in gone:
        if version.key and version.key[:32] not in staying:
            for path in sorted((project / "var/predictions" / model.name).glob(f"{version.key[:32]}-*")):
                yield Doomed("predictions", path.name, path.stat().st_size, path)


def dvc_objects(project: Path, gone: Pairs, kept: Pairs) -> tuple[list[Doomed], list[str]]:
    """Return the objects of DVC's cache that only versions that go refer to, and why none were, where none may be."""
    cache = cache_folder(project)
    if not cache.is_relative_to(project):
        return [], [f"DVC's cache {cache} is shared with other projects: `dvc gc` there, from all of them"]
    wanted = retention.with_members(cache, [digest for model, version in gone for digest in retention.of_version(model, version)])
    if not wanted:
        return [], []
    staying = [digest for model, version in kept for digest in retention.of_version(model, version)]
    safe = retention.with_members(cache, [*staying, *retention.of_workspaces(project), *retention.of_git(project)])
    # A folder's listing goes last: after a kill, only it still tells which files were the folder's.
    unsafe = sorted(wanted - safe, key=lambda digest: (digest.endswith(".dir"), digest))
    found = [(digest, retention.object_path(cache, digest)) for digest in unsafe]
    return [Doomed("DVC object", digest, path.stat().st_size, path) for digest, path in found if path.is_file()], []


def journals(project: Path, gone: Pairs, kept: Pairs) -> Iterator[Doomed]:
    """Yield the searches that only versions that go came from."""
    searches = studies(gone) - studies(kept)
    for root in retention.workspaces(project):
        for path in sorted((root / "var/optuna").glob("*.log")):
            if path.stem in searches - retention.studies_here(root):
                yield Doomed("search journal", path.stem, path.stat().st_size, path)


def studies(pairs: Pairs) -> set[str]:
    """Return the searches that versions came from."""
    return {study for model, version in pairs if (study := retention.study_of(model, version))}


def unfinished(roots: Sequence[Path], pairs: Pairs, idle_days: float) -> Iterator[Doomed]:
    """Yield searches that led to none of the versions, and checkpoints of trainings that were cut short, which nobody went on with."""
    led_somewhere = studies(pairs)
    for root in roots:
        for path in sorted((root / "var/optuna").glob("*.log")):
            if path.stem not in led_somewhere | retention.studies_here(root) and retention.idle(path, idle_days):
                yield Doomed("search journal", path.stem, path.stat().st_size, path)
        for path in sorted((root / "var/checkpoints").glob("*")):
            if path.is_dir() and retention.idle(path, idle_days):
                yield Doomed("checkpoints", path.name, retention.size(path), path)


@contextmanager
def quiet(start: Path | None) -> Iterator[None]:
    """Hold every workspace and every model's promotions.

    Raises:
        Unavailable: a run works in one of them, or a promotion is under way.
    """
    project = open_project(start).project
    with ExitStack() as held:
        for root in retention.workspaces(project):
            held.enter_context(folder_lock(root))
        for model in open_models(start):
            held.enter_context(store_lock(model.uri, f"aliases {model.name}", timeout=30))
        yield


def delete(thing: Doomed) -> None:
    """Delete one thing for good."""
    if thing.version is not None and thing.uri is not None:
        artifact_access.delete_version(thing.uri, thing.version)
    elif thing.path is not None and thing.path.is_dir():
        shutil.rmtree(thing.path, ignore_errors=True)
    elif thing.path is not None:
        thing.path.unlink(missing_ok=True)
    log.info("deleted %s %s, %d bytes", thing.kind, thing.name, thing.bytes)
