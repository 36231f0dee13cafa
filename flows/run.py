"""Run a flow: under Prefect with a managed server, or inline."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from components.core.errors import Cancelled, RetuneError
from flows.dvc_adapter import repro
from flows.orchestrator import orphaned_runs, prefect_adapter
from flows.orchestrator.server import prefect_server
from flows.project.models import find_models, open_model
from flows.project.run_locks import folder_lock, run_lock
from flows.project.workspace import Workspace, open_workspace, sync_workspace
from flows.settings import load_into_environment

if TYPE_CHECKING:
    from components.ledger import Retraining
    from flows.pipeline.actions import Result

log = logging.getLogger(__name__)

T = TypeVar("T")


def run_retrain(workspace: Workspace, inline: bool) -> "Result":
    """Run `retrain` for a workspace, with the locks of workspace and model.

    Raises:
        RetuneError: the run failed.
    """
    from flows.project.params import read_params

    def retrained() -> "Result":
        from flows.pipeline.retrain import retrain

        return retrain(str(workspace.params))

    with folder_lock(workspace.root), run_lock(workspace.project, read_params(workspace.params).name):
        sync_workspace(workspace)  # with the lock: uses the DVC files that the previous run left
        if (workspace.root / "dvc.lock").exists():
            repro.prefetch_dvc_status(workspace.root, [folder / "manifest.json" for folder in (workspace.raw, workspace.base)])
        return under_prefect(workspace.project, inline, retrained)


@dataclass(frozen=True)
class ModelRun:
    """The result of one model in `run --all`; `outcome` is that of the verdict, or `failed`."""

    model: str
    version: int | None
    outcome: str
    reason: str
    exit_code: int


def run_all(project: Path, inline: bool) -> list[ModelRun]:
    """Run `retrain` for every model of the project, one after the other; a failure does not stop the others.

    Raises:
        BadParams: a model's folder is invalid; nothing was run.
        Cancelled: the user cancelled.
    """
    runs = []
    for model in find_models(project):
        try:
            result = run_retrain(open_workspace(model.params), inline)
            runs.append(ModelRun(model.name, result.version, str(result.outcome), result.reason, 0))
        except RetuneError as error:
            log.error("%s: %s", model.name, error)
            runs.append(ModelRun(model.name, None, "failed", str(error), error.exit_code))
    return runs


def run_scheduled(model: str, inline: bool) -> "Retraining":
    """Run a scheduled retraining in the checkout that is the working folder.

    Raises:
        RetuneError: the run failed.
    """
    from flows.project.checkout import project_of

    def scheduled() -> "Retraining":
        from flows.schedule.scheduled_retrain import retrain

        return prefect_adapter.flow(retrain)(model)

    return under_prefect(project_of(), inline, scheduled)


def under_prefect(project: Path, inline: bool, run: Callable[[], T]) -> T:
    """Call `run` with a Prefect server, or without one if `inline`; a cancelled run is marked as such on the server."""
    try:
        settings = load_into_environment(project)
        if settings.mlflow_uri:  # checked before hours of training rather than after
            from components.mlflow_store.connection import check_server

            check_server(settings.mlflow_uri)
        if inline:
            return run()
        with prefect_server(project / "var", settings) as url:
            orphaned_runs.close(url, managed=not settings.prefect_api_url)
            prefect_adapter.configure(url, str(project / "var/prefect"), settings.server_deadline)
            return run()
    except Cancelled:
        prefect_adapter.mark_cancelled()
        raise


@contextmanager
def locked_workspace(model: str | None, params: Path | None) -> Iterator[Workspace]:
    """Lock the workspace of a model or a parameter file, and sync its code and settings.

    Raises:
        Unavailable: another run uses the workspace.
    """
    workspace = open_model(model, params)
    with folder_lock(workspace.root):
        sync_workspace(workspace)
        yield workspace
