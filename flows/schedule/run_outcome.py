"""Record the outcome of a scheduled run in the ledger, and send notifications."""

import logging
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from components.core.errors import BadParams, NotFound, RetuneError
from components.core.markdown import cell, escape
from components.ledger import Ledger, Retraining
from components.mlflow_store import registry
from flows.orchestrator.prefect_adapter import current_flow_run, task
from flows.pipeline.actions import Result
from flows.pipeline.publish_report import VERDICT
from flows.project.params import read_params
from flows.project.stores import champion_of
from flows.project.workspace import Workspace
from flows.schedule.last_run_inputs import FAILED, basis
from flows.schedule.notify import notify
from flows.settings import read_settings

log = logging.getLogger(__name__)


def record_outcome(workspace: Workspace, outcome: str, reason: str, version: int | None = None) -> Retraining:
    """Record the outcome in the ledger, including that nothing changed."""
    name = read_params(workspace.params).name
    retraining = outcome_of(workspace, name, outcome, reason, version, basis(workspace) if version is not None else "")
    write(workspace, retraining)
    log.info("%s: %s, %s", retraining.model, outcome, reason)
    return retraining


def record_failure(workspace: Workspace, why: str) -> None:
    """Record and notify why a run failed; notify even if the settings are invalid or the ledger is unreachable."""
    name = workspace.origin.name
    with suppress(BadParams):
        name = read_params(workspace.params).name
    retraining = outcome_of(workspace, name, FAILED, why)
    try:
        write(workspace, retraining)
    except RetuneError as error:
        log.error("could not record the failed run in the ledger: %s", error)
    announce(workspace, retraining)


def write(workspace: Workspace, retraining: Retraining) -> None:
    """Write an outcome to the ledger, and store the ledger's head in MLflow if there is a registry.

    If MLflow is unreachable, the run does not fail, and the next run stores the head.
    """
    Ledger(workspace.ledger).record_retraining(retraining)
    try:
        registry.refresh_ledger_head(champion_of(workspace).mlflow, workspace.ledger, retraining.model)
    except NotFound:
        log.debug("there is no registry yet to store the ledger's head in")
    except RetuneError as error:
        log.error("the outcome is in the ledger, but its head could not be stored in MLflow; the next run will do it: %s", error)


def outcome_of(workspace: Workspace, model: str, outcome: str, reason: str, version: int | None = None, made_with: str = "") -> Retraining:
    """Return an outcome as a ledger record; `made_with` is the hash of `basis`, for runs that registered a version."""
    return Retraining(
        model=model,
        at=datetime.now(UTC),
        outcome=outcome,
        reason=reason,
        version=version,
        basis=made_with,
        git_commit=workspace.commit,
        flow_run=current_flow_run(),
    )


@task
def announce(workspace: Workspace, retraining: Retraining, result: Result | None = None, more: str = "") -> None:
    """Notify the verdict with every gate's reason, or why the run failed, with a link to details."""
    subject = f"{cell(retraining.model)} version {retraining.version}" if retraining.version else cell(retraining.model)
    text = (workspace.reports / VERDICT).read_text(encoding="utf-8") if result is not None else escape(retraining.reason)
    link = details_link(workspace.project, retraining)
    notify(workspace.project, f"{retraining.outcome}: {subject}", f"{text}{escape(more)}\n\nDetails: {link}")


def details_link(project: Path, retraining: Retraining) -> str:
    """Return the URL of the version or the run, or a command that shows details."""
    settings = read_settings(project)
    if retraining.version is not None:
        page = f"{settings.mlflow_uri}/#/models/{quote(retraining.model, safe='')}/versions/{retraining.version}"
        return page if settings.mlflow_uri else f"retune why {cell(retraining.model)} {retraining.version}"
    if settings.prefect_api_url and retraining.flow_run:
        return f"{settings.prefect_api_url.removesuffix('/api')}/runs/flow-run/{retraining.flow_run}"
    return "`retune status --all`"
