"""Start the main story: under Prefect with a managed server, or inline."""

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
from flows.project.models import find_models
from flows.project.run_locks import folder_lock, run_lock
from flows.project.workspace import Workspace, open_workspace, sync_workspace
from flows.settings import Settings, load_into_environment

if TYPE_CHECKING:
    from components.ledger import Retraining
    from flows.pipeline.actions import Result

log = logging.getLogger(__name__)

T = TypeVar("T")


def run_retrain(workspace: Workspace, inline: bool) -> "Result":
    """Tell the story of `retrain` for a workspace, alone in it and alone with its model.

    Raises:
        RetuneError: whatever ended the run.
    """
    from flows.project.params import read_params

    with folder_lock(workspace.root), run_lock(workspace.project, read_params(workspace.params).name):
        sync_workspace(workspace)  # only now: what DVC knows is what the run before left
        if (workspace.root / "dvc.lock").exists():
            repro.prefetch_dvc_status(workspace.root, [folder / "manifest.json" for folder in (workspace.raw, workspace.base)])
        return under_prefect(workspace.project, inline, lambda: _retrain(workspace))


@dataclass(frozen=True)
class ModelRun:
    """How the run of one of several models ended; `outcome` is the verdict's, or `failed`."""

    model: str
    version: int | None
    outcome: str
    reason: str
    exit_code: int


def run_all(project: Path, inline: bool) -> list[ModelRun]:
    """Tell the story of `retrain` for every model of the project, one after the other; one that fails keeps none from its turn.

    Raises:
        BadParams: a model's folder cannot be read; nothing was run.
        Cancelled: a person ended it.
    """
    ended = []
    for model in find_models(project):
        try:
            result = run_retrain(open_workspace(model.params), inline)
            ended.append(ModelRun(model.name, result.version, str(result.outcome), result.reason, 0))
        except Cancelled:
            raise
        except RetuneError as error:
            log.error("%s: %s", model.name, error)
            ended.append(ModelRun(model.name, None, "failed", str(error), error.exit_code))
    return ended


def run_scheduled(model: str, inline: bool) -> "Retraining":
    """Tell the story of a schedule in the checkout that is the working folder.

    Raises:
        RetuneError: whatever ended the run.
    """
    from flows.project.checkout import project_of

    def story() -> "Retraining":
        from flows.schedule.scheduled_retrain import retrain

        return prefect_adapter.flow(retrain)(model)

    return under_prefect(project_of(), inline, story)


def under_prefect(project: Path, inline: bool, story: Callable[[], T]) -> T:
    """Tell a story with a server of Prefect's at hand, or `inline` without; a run that was cancelled is told to the server."""
    try:
        settings = load_into_environment(project)
        reach_mlflow(settings)
        if inline:
            return story()
        with prefect_server(project / "var", settings) as url:
            orphaned_runs.close(url, managed=not settings.prefect_api_url)
            prefect_adapter.configure(url, str(project / "var/prefect"), settings.server_deadline)
            return story()
    except Cancelled:
        prefect_adapter.mark_cancelled()
        raise


def reach_mlflow(settings: Settings) -> None:
    """Make sure that the tracking server of the settings answers, before hours of training rather than after.

    Raises:
        Unavailable: it does not.
    """
    if settings.mlflow_uri:
        from components.mlflow_store.connection import check_server  # costs seconds

        check_server(settings.mlflow_uri)


def _retrain(workspace: Workspace) -> "Result":
    from flows.pipeline.retrain import retrain

    return retrain(str(workspace.params))


@contextmanager
def single_process(workspace: Workspace) -> Iterator[None]:
    """Hold the workspace, and bring its code and settings up to date: two runs in one folder would mix their outputs.

    Raises:
        Unavailable: another run works here.
    """
    with folder_lock(workspace.root):
        sync_workspace(workspace)
        yield
