"""Verify that every past and present champion is intact: each ledger entry leads to files whose hashes match.

Reads MLflow's packages, DVC's cache and the workspaces; changes nothing. `CHECKS` run in this order; each yields faults.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel

from components.core.errors import NotFound, RetuneError, Unavailable
from components.mlflow_store import registry
from components.mlflow_store.registry import artifact_access
from flows.audit import retention
from flows.audit.registered_model import RegisteredModel, open_model, open_models
from flows.dvc_adapter import file_integrity
from flows.dvc_adapter.cache import cached_listing, cached_object, object_path
from flows.dvc_adapter.config import default_remote
from flows.dvc_adapter.lock import locked_stages
from flows.dvc_adapter.repro import in_remote
from flows.project.run_locks import folder_lock


class Fault(BaseModel, frozen=True):
    """A mismatch: `store` is the ledger, MLflow, DVC or a workspace; `version` is None if it belongs to no version."""

    store: str
    version: int | None
    message: str


class RegistryCheck(BaseModel, frozen=True):
    """The checked versions and objects, and every fault. `notes` name items that were not checked or are in the remote."""

    model: str
    versions: tuple[int, ...]
    objects: int
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]


@dataclass
class Inspection:
    """A model under inspection. A `quick` one hashes only new workspace files and checks everything else for existence."""

    model: RegisteredModel
    quick: bool
    objects: dict[str, str | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def reached(self) -> list[registry.Version]:
        """The registered versions that the ledger or the alias champion names."""
        numbers = {entry.version for entry in self.model.entries} | {self.model.champion}
        return [version for version in self.model.versions if version.number in numbers]


def verify(name: str | None = None, quick: bool = False, start: Path | None = None) -> list[RegistryCheck]:
    """Verify one model, or all of the project.

    Raises:
        NotFound: no such model, or the ledger is missing.
        Unavailable: the registry is unreachable.
    """
    return [verify_model(model, quick) for model in ([open_model(name, start=start)] if name else open_models(start))]


def verify_model(model: RegisteredModel, quick: bool = False) -> RegistryCheck:
    """Run all checks on one model."""
    inspection = Inspection(model, quick)
    faults = tuple(fault for check in CHECKS for fault in check(inspection))
    numbers = tuple(version.number for version in inspection.reached)
    return RegistryCheck(model=model.name, versions=numbers, objects=len(inspection.objects), faults=faults, notes=tuple(inspection.notes))


def ledger_versions(inspection: Inspection) -> Iterator[Fault]:
    """Check that ledger entries name registered versions, with unchanged evidence."""
    registered = {version.number: version for version in inspection.model.versions}
    for number in sorted({entry.version for entry in inspection.model.entries} - registered.keys()):
        yield Fault(store="ledger", version=number, message="it was champion, but is no longer in the registry")
    if inspection.quick:
        return
    for number, evidence in sorted({(entry.version, entry.evidence) for entry in inspection.model.entries if entry.evidence}):
        if number in registered and registry.read_verdict(inspection.model.uri, registered[number], evidence) is None:
            yield Fault(store="ledger", version=number, message=f"the evidence {evidence[:12]} of its promotion is missing or was changed")


def ledger_chain(inspection: Inspection) -> Iterator[Fault]:
    """Check the ledger's hash chain against MLflow's copy; `retune doctor` does this separately."""
    if not inspection.quick:
        yield from (Fault(store="ledger", version=None, message=message) for message in inspection.model.ledger_faults())


def packages(inspection: Inspection) -> Iterator[Fault]:
    """Check that each version's package in MLflow has the registered files."""
    for version in inspection.reached:
        try:
            if inspection.quick:
                artifact_access.artifact(inspection.model.uri, version, "dvc.lock")
            else:
                registry.checked_package(inspection.model.uri, version)
        except Unavailable:
            raise
        except RetuneError as error:
            yield Fault(store="MLflow", version=version.number, message=str(error))


def dvc(inspection: Inspection) -> Iterator[Fault]:
    """Check that each folder and file that a version was built from is intact in DVC's cache, or present in its remote."""
    project, missing = inspection.model.project, dict[str, list[tuple[int, str]]]()
    for version in inspection.reached:
        try:
            hashes = inspection.model.hashes(version)
        except NotFound as error:
            yield Fault(store="DVC", version=version.number, message=str(error))
            continue
        for path, md5 in hashes.items():
            for name, member_md5 in members(inspection, path, md5):
                if not object_path(project, member_md5).is_file():
                    missing.setdefault(member_md5, []).append((version.number, name))
                elif (fault := damage(inspection, member_md5)) is not None:
                    yield Fault(store="DVC", version=version.number, message=f"{name}: {fault}")
    if missing:
        yield from remote_faults(inspection, missing)


def members(inspection: Inspection, path: str, md5: str) -> Iterator[tuple[str, str]]:
    """Yield a tracked path with its md5, and for a folder with a readable listing also those of its files."""
    yield path, md5
    if md5.endswith(".dir"):
        try:
            listing = cached_listing(inspection.model.project, md5)
        except (NotFound, ValueError):
            return
        yield from ((f"{path}/{name}", file_md5) for name, file_md5 in listing.items())


def damage(inspection: Inspection, md5: str) -> str | None:
    """Describe the damage of a cached object, None if intact; each object is read once."""
    if md5 not in inspection.objects:
        inspection.objects[md5] = None
        if not inspection.quick:
            try:
                cached_object(inspection.model.project, md5)
            except NotFound as error:
                inspection.objects[md5] = str(error)
    return inspection.objects[md5]


def remote_faults(inspection: Inspection, missing: dict[str, list[tuple[int, str]]]) -> Iterator[Fault]:
    """Look up objects missing from the cache in DVC's remote; a quick inspection only notes them."""
    project = inspection.model.project
    if inspection.quick:
        inspection.notes.append(f"{len(missing)} objects are not in DVC's cache here")
        return
    remote = default_remote(project)
    try:
        present = in_remote(project, missing) if remote else set()
    except RetuneError as error:
        present = set()
        inspection.notes.append(str(error))
    if present and remote:
        inspection.notes.append(
            f"{len(present)} objects are only in the remote {remote[0]}, not in DVC's cache here; their content was not checked"
        )
    for md5, users in missing.items():
        if md5 not in present:
            for number, name in users:
                path = object_path(project, md5)
                yield Fault(store="DVC", version=number, message=f"{name}: {md5} is neither in DVC's cache ({path}) nor in its remote")


def workspaces(inspection: Inspection) -> Iterator[Fault]:
    """Check the workspaces' outputs against their dvc.lock, and their inputs against their manifests."""
    for root in retention.workspaces_of(inspection.model.project, inspection.model.name):
        try:
            with folder_lock(root):
                damages = [*damaged(root, inspection.quick)]
        except Unavailable as error:
            inspection.notes.append(f"not checked: {error}")
            continue
        yield from (Fault(store="workspace", version=None, message=message) for message in damages)


def damaged(root: Path, quick: bool) -> Iterator[str]:
    """Describe each damaged file of a workspace."""
    rehash = not quick
    for file, md5 in file_integrity.damaged_outputs(root, locked_stages(root), rehash).items():
        yield f"{root / file} does not match dvc.lock ({md5}): `retune run` restores or rebuilds it"
    for folder in (root / "data/raw", root / "data/base"):
        if (folder / "manifest.json").exists() and not file_integrity.manifest_hashes(root, folder):
            yield f"{folder / 'manifest.json'} cannot be read: `retune run` recreates {folder}"
        for file in file_integrity.damaged_input(root, folder, rehash):
            yield f"{root / file} is missing or does not match {folder / 'manifest.json'}: `retune run` restores or recreates it"


CHECKS: tuple[Callable[[Inspection], Iterable[Fault]], ...] = (ledger_versions, ledger_chain, packages, dvc, workspaces)
