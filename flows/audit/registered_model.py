"""Open a registered model by name from anywhere in the project: all workspaces share one registry and one ledger."""

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
from flows.project.models import name_of
from flows.project.stores import LOCAL, champion_of
from flows.project.workspace import open_project


@dataclass(frozen=True)
class RegisteredModel:
    """A model's versions in the registry (oldest first), with access to its ledger and artifacts."""

    name: str
    project: Path
    uri: str
    ledger_url: str
    versions: tuple[registry.Version, ...]

    def version(self, number: int) -> registry.Version:
        """Return one version.

        Raises:
            NotFound: it does not exist; the message lists the versions.
        """
        versions = {version.number: version for version in self.versions}
        if number not in versions:
            raise NotFound(f"{self.name} has no version {number}; there are: {', '.join(map(str, versions)) or 'none'}")
        return versions[number]

    @property
    def champion(self) -> int | None:
        """The version with the alias `champion`."""
        return next((version.number for version in self.versions if registry.CHAMPION in version.aliases), None)

    @cached_property
    def ledger(self) -> Ledger | None:
        """The ledger; None if it does not exist yet, which is valid only before the first promotion.

        Raises:
            NotFound: a version is champion or was promoted, but the ledger is missing or empty.
        """
        path = sqlite_path(self.ledger_url)
        if path is not None and not path.exists():
            self._check_unpromoted(f"{path} is missing")
            return None
        ledger = Ledger(self.ledger_url)
        if ledger.head(self.name) is None:
            self._check_unpromoted(f"the ledger {ledger} has no entry for {self.name}")
        return ledger

    def _check_unpromoted(self, problem: str) -> None:
        """Refuse a ledger without entries if the registry shows a promotion."""
        promoted = [version.number for version in self.versions if {LEDGER, PROMOTED} & version.tags.keys()]
        if self.champion is None and not promoted:
            return
        aliased = f"the alias champion of {self.name} points to version {self.champion}"
        tagged = f"version {promoted[-1] if promoted else ''} of {self.name} was promoted, by its tags"
        accept = " --accept --why TEXT" if any(LEDGER in version.tags for version in self.versions) else ""
        raise NotFound(
            f"{problem}, but {aliased if self.champion is not None else tagged}: restore a copy of the ledger, or start a new "
            f"one from the alias with `retune reconcile {self.name}{accept}`"
        )

    def ledger_faults(self) -> tuple[str, ...]:
        """Describe how the ledger differs from its chain and from MLflow's copy; empty if there is no ledger yet."""
        return registry.verify_ledger(self.uri, self.ledger_url, self.name).faults if self.ledger else ()

    @property
    def entries(self) -> list[Entry]:
        """Every change of champion, oldest first."""
        return self.ledger.entries(self.name) if self.ledger else []

    @property
    def requests(self) -> list[Request]:
        """Every request for approval, answered or not, oldest first."""
        return self.ledger.requests(self.name) if self.ledger else []

    def hashes(self, version: registry.Version) -> dict[str, str]:
        """Return DVC's md5 of each tracked folder and stage output that a version was built from, by path.

        Raises:
            NotFound: the version was not registered by Retune.
        """
        try:
            hashes: dict[str, str] = json.loads(version.tags["retune.dvc_lock"])
        except (KeyError, ValueError):
            raise NotFound(
                f"{version.uri} has no tag retune.dvc_lock: it was not registered by Retune, and its origin is unknown"
            ) from None
        return hashes


def open_model(name: str | None, environment: str = LOCAL, start: Path | None = None) -> RegisteredModel:
    """Return the registered model `name` (default: that of params.yaml) of an environment, for the project at `start` (default: here).

    Raises:
        NotFound: there is no project, nothing is registered in it, or the model does not exist; the message lists the models.
        BadParams: the environment does not exist, or params.yaml has no valid name.
    """
    project = open_project(start)
    name = name or name_of(project.params)
    stores = champion_of(project) if environment == LOCAL else find_environment(environment, start)
    versions = tuple(registry.versions(stores.mlflow, name))
    if not versions:
        where = project.project if environment == LOCAL else f"the environment {environment}"
        raise NotFound(
            f"no model {name!r} is registered in {where}{nearest(name, artifact_access.models(stores.mlflow)) or ': no models yet'}"
        )
    return RegisteredModel(name, project.project, stores.mlflow, stores.ledger, versions)


def open_models(start: Path | None = None) -> list[RegisteredModel]:
    """Return every model in the project's registry."""
    project = open_project(start)
    stores, root = champion_of(project), project.project
    names = artifact_access.models(stores.mlflow)
    return [RegisteredModel(name, root, stores.mlflow, stores.ledger, tuple(registry.versions(stores.mlflow, name))) for name in names]


def shown(moment: datetime) -> str:
    """Format a time: 2026-11-01T12:00:05Z."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
