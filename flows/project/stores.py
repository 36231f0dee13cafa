"""Where runs and versions of this project are kept: embedded below `var/`, or in the services that the settings name."""

from components.core.errors import NotFound
from components.mlflow_store import tracking
from components.mlflow_store.registry import Environment
from flows.project.workspace import Workspace
from flows.settings import read_settings

LOCAL = "local"


def store(workspace: Workspace) -> str:
    """Return the address of MLflow's store, ready to be used."""
    return read_settings(workspace.project).mlflow_uri or tracking.prepare_store(workspace.var)


def local(workspace: Workspace) -> Environment:
    """Return the project's own registry and ledger, made where they are embedded and not there yet."""
    return Environment(LOCAL, store(workspace), workspace.ledger)


def champion_of(workspace: Workspace) -> Environment:
    """Return the project's own registry and ledger for who only asks.

    Raises:
        NotThere: there is none; asking must not make one.
    """
    database = workspace.var / "mlflow.db"
    if not read_settings(workspace.project).mlflow_uri and not database.exists():
        raise NotFound(f"{database} is missing: no run has been recorded here; `retune run` makes it")
    return local(workspace)
