"""Find versions that other environments still use, so that this project keeps them for rebuilds and comparisons.

Reads the registries and ledgers in RETUNE_ENVIRONMENTS; changes nothing.
"""

from dataclasses import dataclass
from pathlib import Path

from components.core.errors import RetuneError, Unavailable
from components.mlflow_store import registry
from components.mlflow_store.registry.ledger_head import join_faults
from flows.audit.registered_model import RegisteredModel
from flows.audit.retention import reasons
from flows.settings import EnvironmentSettings, read_settings


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
    """Return the model `name` of each environment.

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
        return RemoteModel(environment, model, kept_candidates(model))
    except RetuneError as error:
        raise Unavailable(
            f"the environment {environment} is unreachable, so its production versions are unknown and nothing is deleted; "
            f"if it no longer exists, remove it from RETUNE_ENVIRONMENTS: {error}"
        ) from error


def kept_candidates(model: RegisteredModel) -> dict[str, str]:
    """Return the keys of all candidates in a ledger entry, an alias or a waiting request, with the reason."""
    reason_by_key = {entry.key: "in the ledger" for entry in model.entries}
    keys = {version.number: version.key for version in model.versions}
    reason_by_key |= {keys[number]: why for number, why in reasons(model, keep=0).items()}
    return {key: why for key, why in reason_by_key.items() if key}
