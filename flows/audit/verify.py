"""Whether what was ever in production can still be had: every champion and every entry of the ledger leads to files whose hashes match.

Looks into MLflow's packages, DVC's cache and the workspaces; changes nothing. `CHECKS` are run in this order; each yields faults.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components.core.errors import NotFound, RetuneError, Unavailable
from components.mlflow_store import registry
from components.mlflow_store.registry import artifact_access
from flows.audit import retention
from flows.audit.registered_model import RegisteredModel, open_model, open_models
from flows.dvc_adapter import file_integrity
from flows.dvc_adapter.config import default_remote
from flows.dvc_adapter.lock import locked
from flows.dvc_adapter.repro import cached_listing, cached_object, in_remote, object_path
from flows.project.run_locks import folder_lock


class Fault(BaseModel):
    """What does not match: `place` is the ledger, MLflow, DVC or a workspace; `version` is None for what belongs to none."""

    model_config = ConfigDict(frozen=True)

    place: str
    version: int | None
    says: str


class RegistryCheck(BaseModel):
    """What was looked at, and every fault. `notes` say what could not be looked at, or lies elsewhere."""

    model_config = ConfigDict(frozen=True)

    model: str
    versions: tuple[int, ...]
    objects: int
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]


@dataclass
class Look:
    """A model under examination. A `quick` look hashes only what is new in the workspaces, and asks of all else whether it is there."""

    model: RegisteredModel
    quick: bool
    objects: dict[str, str | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def reached(self) -> list[registry.Version]:
        """The versions that an entry of the ledger or the alias champion names, as far as they are registered."""
        wanted = {entry.version for entry in self.model.entries} | {self.model.champion}
        return [version for version in self.model.versions if version.number in wanted]


def verify(name: str | None = None, quick: bool = False, start: Path | None = None) -> list[RegistryCheck]:
    """Verify one model, or all of the project.

    Raises:
        NotThere: no such model; or the ledger is gone.
        Unavailable: the registry is out of reach.
    """
    return [verify_model(model, quick) for model in ([open_model(name, start=start)] if name else open_models(start))]


def verify_model(model: RegisteredModel, quick: bool = False) -> RegistryCheck:
    """Verify one model by all checks."""
    look = Look(model, quick)
    faults = tuple(fault for check in CHECKS for fault in check(look))
    numbers = tuple(version.number for version in look.reached)
    return RegistryCheck(model=model.name, versions=numbers, objects=len(look.objects), faults=faults, notes=tuple(look.notes))


def ledger(look: Look) -> Iterator[Fault]:
    """The ledger's entries name versions that are registered, and evidence that is as it was written."""
    known = {version.number: version for version in look.model.versions}
    for number in sorted({entry.version for entry in look.model.entries} - known.keys()):
        yield Fault(place="ledger", version=number, says="it was champion, and is not in the registry any more")
    if look.quick:
        return
    for number, evidence in sorted({(entry.version, entry.evidence) for entry in look.model.entries if entry.evidence}):
        if number in known and registry.read_verdict(look.model.uri, known[number], evidence) is None:
            yield Fault(place="ledger", version=number, says=f"the evidence {evidence[:12]} of its promotion is gone, or was changed since")


def chain(look: Look) -> Iterator[Fault]:
    """The ledger's entries are those that were written, and the ones that MLflow knows of; `retune doctor` asks that by itself."""
    if not look.quick:
        yield from (Fault(place="ledger", version=None, says=says) for says in look.model.ledger_faults())


def packages(look: Look) -> Iterator[Fault]:
    """Each version's package in MLflow has the files that were registered."""
    for version in look.reached:
        try:
            if look.quick:
                artifact_access.artifact(look.model.uri, version, "dvc.lock")
            else:
                registry.checked_package(look.model.uri, version)
        except Unavailable:
            raise
        except RetuneError as error:
            yield Fault(place="MLflow", version=version.number, says=str(error))


def dvc(look: Look) -> Iterator[Fault]:
    """Each folder and file that a version was made with is in DVC's cache, or at least in its remote, whole."""
    project, missing = look.model.project, dict[str, list[tuple[int, str]]]()
    for version in look.reached:
        try:
            hashes = look.model.hashes(version)
        except NotFound as error:
            yield Fault(place="DVC", version=version.number, says=str(error))
            continue
        for path, md5 in hashes.items():
            for name, each in members(look, path, md5):
                if not object_path(project, each).is_file():
                    missing.setdefault(each, []).append((version.number, name))
                elif (fault := damage(look, each)) is not None:
                    yield Fault(place="DVC", version=version.number, says=f"{name}: {fault}")
    if missing:
        yield from elsewhere(look, missing)


def members(look: Look, path: str, md5: str) -> Iterator[tuple[str, str]]:
    """Yield a tracked path with its object, and for a folder those of its files where the listing is whole."""
    yield path, md5
    if md5.endswith(".dir"):
        try:
            listing = cached_listing(look.model.project, md5)
        except (NotFound, ValueError):
            return
        yield from ((f"{path}/{name}", each) for name, each in listing.items())


def damage(look: Look, md5: str) -> str | None:
    """Return what is wrong with an object that is in the cache; each is read once."""
    if md5 not in look.objects:
        look.objects[md5] = None
        if not look.quick:
            try:
                cached_object(look.model.project, md5)
            except NotFound as error:
                look.objects[md5] = str(error)
    return look.objects[md5]


def elsewhere(look: Look, missing: dict[str, list[tuple[int, str]]]) -> Iterator[Fault]:
    """Ask DVC's remote for what the cache lacks; a quick look only notes it."""
    project = look.model.project
    if look.quick:
        look.notes.append(f"{len(missing)} objects are not in DVC's cache here")
        return
    remote = default_remote(project)
    try:
        there = in_remote(project, missing) if remote else set()
    except RetuneError as error:
        there = set()
        look.notes.append(str(error))
    if there and remote:
        look.notes.append(f"{len(there)} objects are not in DVC's cache here, but in the remote {remote[0]}, where they were not read")
    for md5, places in missing.items():
        if md5 not in there:
            for number, name in places:
                where = object_path(project, md5)
                yield Fault(place="DVC", version=number, says=f"{name}: {md5} is neither in DVC's cache ({where}) nor in its remote")


def workspaces(look: Look) -> Iterator[Fault]:
    """The outputs in the model's workspaces are those that their dvc.lock names, and the inputs those of their manifests."""
    for root in retention.workspaces_of(look.model.project, look.model.name):
        try:
            with folder_lock(root):
                found = [*damaged(root, look.quick)]
        except Unavailable as error:
            look.notes.append(f"not looked at: {error}")
            continue
        yield from (Fault(place="workspace", version=None, says=says) for says in found)


def damaged(root: Path, quick: bool) -> Iterator[str]:
    """Yield a sentence for each file of a workspace that has other bytes than it should."""
    anew = not quick
    for file, md5 in file_integrity.damaged_outputs(root, locked(root), anew).items():
        yield f"{root / file} is not what dvc.lock says ({md5}): `retune run` brings it back or makes it anew"
    for folder in (root / "data/raw", root / "data/base"):
        if (folder / "manifest.json").exists() and not file_integrity.listed(root, folder):
            yield f"{folder / 'manifest.json'} cannot be read: `retune run` takes {folder} anew"
        for file in file_integrity.damaged_input(root, folder, anew):
            yield f"{root / file} is missing, or not what {folder / 'manifest.json'} says: `retune run` brings it back or takes it anew"


CHECKS: tuple[Callable[[Look], Iterable[Fault]], ...] = (ledger, chain, packages, dvc, workspaces)
