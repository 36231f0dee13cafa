"""The stores of this project: embedded below `var/`, or the services that the settings name."""

from pathlib import Path

from components.core.errors import NotFound
from components.mlflow_store import registry, tracking
from components.mlflow_store.registry import Environment
from flows.project.workspace import Workspace
from flows.settings import read_settings

LOCAL = "local"


def store(workspace: Workspace) -> str:
    """Return the URI of the MLflow store, which is prepared for use."""
    return read_settings(workspace.project).mlflow_uri or tracking.prepare_store(workspace.var)


def find_registered(workspace: Workspace, model: str) -> tuple[Path, str]:
    """Return the folder and the models:/NAME/VERSION of a registered model, given as models:/NAME@ALIAS or models:/NAME/VERSION."""
    return registry.model_folder(store(workspace), model)


def local(workspace: Workspace) -> Environment:
    """Return the project's registry and ledger; embedded ones are created if missing."""
    return Environment(LOCAL, store(workspace), workspace.ledger)


def champion_of(workspace: Workspace) -> Environment:
    """Return the project's registry and ledger for read-only use; raise NotFound if they do not exist."""
    database = workspace.var / "mlflow.db"
    if not read_settings(workspace.project).mlflow_uri and not database.exists():
        raise NotFound(f"{database} is missing: no run has been recorded here; `retune run` creates it")
    return local(workspace)
