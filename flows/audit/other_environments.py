"""What other environments reach: who was made here and is in production there must stay here, where it can be made again and compared.

Reads the registries and ledgers that RETUNE_ENVIRONMENTS names; changes nothing.
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
    """A model in another environment, and why each of its candidates (by key, which is the same in every registry) stays."""

    environment: str
    model: RegisteredModel
    reasons: dict[str, str]

    @property
    def kept(self) -> list[registry.Version]:
        """The versions there that stay, with all that they were made with."""
        return [version for version in self.model.versions if version.key in self.reasons]

    def here(self, model: RegisteredModel) -> dict[int, str]:
        """Return why versions of the same model in this project's registry stay, by number."""
        mine = {version.number: version.key for version in model.versions if version.key in self.reasons}
        return {number: f"{self.reasons[key]} in {self.environment}" for number, key in mine.items()}


def remote_models(project: Path, name: str) -> list[RemoteModel]:
    """Return the model `name` as each environment has it.

    Raises:
        Unavailable: one cannot be reached, and nobody knows what is in production there.
        BadParams: RETUNE_ENVIRONMENTS cannot be read.
    """
    return [_abroad(environment, place, project, name) for environment, place in read_settings(project).environments.items()]


def _abroad(environment: str, place: EnvironmentSettings, project: Path, name: str) -> RemoteModel:
    try:
        model = RegisteredModel(name, project, place.mlflow, place.ledger, tuple(registry.versions(place.mlflow, name)))
        if faults := model.ledger_faults():
            raise RetuneError(f"its ledger is not what was written: {join_faults(faults)}")
        return RemoteModel(environment, model, reached(model))
    except RetuneError as error:
        raise Unavailable(
            f"the environment {environment} cannot be reached, so nobody knows what is in production there, and nothing is deleted; "
            f"if it is no more, take it out of RETUNE_ENVIRONMENTS: {error}"
        ) from error


def reached(model: RegisteredModel) -> dict[str, str]:
    """Return the keys of all candidates that a ledger, an alias or a waiting question names, and why."""
    said = {entry.key: "in the ledger" for entry in model.entries}
    known = {version.number: version.key for version in model.versions}
    said |= {known[number]: why for number, why in reasons(model, keep=0).items()}
    return {key: why for key, why in said.items() if key}
