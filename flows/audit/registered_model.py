"""A registered model, asked by its name from anywhere inside the project: all workspaces share one registry and one ledger."""

import json
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from components.core.errors import NotFound
from components.core.section import nearest
from components.ledger import Entry, Ledger, Request
from components.mlflow_store import registry
from components.mlflow_store.connection import sqlite_path
from components.mlflow_store.registry import artifact_access
from components.mlflow_store.registry.versions import LEDGER, PROMOTED
from flows.production.promotion import environment as find_environment
from flows.project.stores import LOCAL, champion_of
from flows.project.workspace import Workspace, find_project
from flows.settings import load_into_environment


@dataclass(frozen=True)
class RegisteredModel:
    """A model's versions as the registry has them (oldest first), and the way to all that is known about them."""

    name: str
    project: Path
    uri: str
    ledger_url: str
    versions: tuple[registry.Version, ...]

    def version(self, number: int) -> registry.Version:
        """Return one version.

        Raises:
            NotThere: it does not exist; the message names those that do.
        """
        for version in self.versions:
            if version.number == number:
                return version
        there = ", ".join(str(version.number) for version in self.versions) or "none"
        raise NotFound(f"{self.name} has no version {number}; there are: {there}")

    @property
    def champion(self) -> int | None:
        """The version that the alias `champion` names."""
        return next((version.number for version in self.versions if registry.CHAMPION in version.aliases), None)

    @cached_property
    def ledger(self) -> Ledger | None:
        """The ledger; None where there is none yet, which is right only while nothing was promoted.

        Raises:
            NotThere: a version is champion, or was promoted, and the ledger that says why is gone, or empty.
        """
        path = sqlite_path(self.ledger_url)
        if path is not None and not path.exists():
            self._check_unpromoted(f"{path} is missing")
            return None
        ledger = Ledger(self.ledger_url)
        if ledger.head(self.name) is None:
            self._check_unpromoted(f"the ledger {ledger} has no entry for {self.name}")
        return ledger

    def _check_unpromoted(self, found: str) -> None:
        """Refuse a ledger without entries where the registry shows that there were some."""
        promoted = [version.number for version in self.versions if {LEDGER, PROMOTED} & version.tags.keys()]
        if self.champion is None and not promoted:
            return
        at = f"the alias champion of {self.name} is at version {self.champion}"
        tagged = f"version {promoted[-1] if promoted else ''} of {self.name} was promoted, by its tags"
        begins = f"`retune reconcile {self.name}" + (" --accept --why TEXT`" if any(LEDGER in one.tags for one in self.versions) else "`")
        raise NotFound(
            f"{found}, and {at if self.champion is not None else tagged}: restore a copy of the ledger, or {begins} begins a new one from "
            "the alias"
        )

    def ledger_faults(self) -> tuple[str, ...]:
        """Return how the ledger differs from what was written, and from what MLflow keeps of it; nothing where there is none yet."""
        return registry.verify_ledger(self.uri, self.ledger_url, self.name).faults if self.ledger else ()

    @property
    def entries(self) -> list[Entry]:
        """Every change of champion, oldest first."""
        return self.ledger.entries(self.name) if self.ledger else []

    @property
    def requests(self) -> list[Request]:
        """Every question to a person, answered or not, oldest first."""
        return self.ledger.requests(self.name) if self.ledger else []

    def hashes(self, version: registry.Version) -> dict[str, str]:
        """Return DVC's md5 of every tracked folder and stage output that a version was made with, by path.

        Raises:
            NotThere: the version has no such list: it was not registered by Retune.
        """
        try:
            found: dict[str, str] = json.loads(version.tags["retune.dvc_lock"])
        except (KeyError, ValueError):
            raise NotFound(
                f"{version.uri} has no tag retune.dvc_lock: it was not registered by Retune, and its origin is unknown"
            ) from None
        return found

    def hash_of(self, version: registry.Version, path: str) -> str:
        """Return DVC's md5 of one tracked path of a version.

        Raises:
            NotThere: the version has none.
        """
        hashes = self.hashes(version)
        if path not in hashes:
            raise NotFound(f"{version.uri} was made without {path}; it has {', '.join(hashes)}")
        return hashes[path]


def open_model(name: str, environment: str = LOCAL, start: Path | None = None) -> RegisteredModel:
    """Return the registered model `name` of an environment, as the project above `start` (the working folder) knows it.

    Raises:
        NotThere: no project here, nothing was recorded in it, or it has no such model; the message names those that it has.
        BadParams: no environment has that name.
    """
    project = open_project(start)
    place = champion_of(project) if environment == LOCAL else find_environment(environment, start)
    known = tuple(registry.versions(place.mlflow, name))
    if not known:
        where = project.project if environment == LOCAL else f"the environment {environment}"
        raise NotFound(
            f"no model {name!r} is registered in {where}{nearest(name, artifact_access.models(place.mlflow)) or '; there is none at all'}"
        )
    return RegisteredModel(name, project.project, place.mlflow, place.ledger, known)


def open_models(start: Path | None = None) -> list[RegisteredModel]:
    """Return every model in the project's own registry."""
    project = open_project(start).project
    place = champion_of(open_project(start))
    names = artifact_access.models(place.mlflow)
    return [RegisteredModel(name, project, place.mlflow, place.ledger, tuple(registry.versions(place.mlflow, name))) for name in names]


def open_project(start: Path | None = None) -> Workspace:
    """Return the project's own workspace, whether or not it has a params.yaml: a registry outlives the settings."""
    project = find_project((start or Path.cwd()).resolve())
    load_into_environment(project)
    return Workspace(project, project, project / "params.yaml")


def shown(moment: datetime) -> str:
    """Return a moment as people write it: 2026-11-01T12:00:05Z."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
