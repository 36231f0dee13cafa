"""How a scheduled run ended: written into the ledger, and told to people."""

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
from flows.pipeline.actions import Result, read_name
from flows.pipeline.publish_report import VERDICT
from flows.project.stores import champion_of
from flows.project.workspace import Workspace
from flows.schedule.last_run_inputs import FAILED, basis
from flows.schedule.notify import notify
from flows.settings import read_settings

log = logging.getLogger(__name__)


def record_outcome(workspace: Workspace, outcome: str, reason: str, version: int | None = None) -> Retraining:
    """Write down how the run ended, also that there was nothing to do."""
    ended = outcome_of(workspace, read_name(workspace), outcome, reason, version, basis(workspace) if version is not None else "")
    write(workspace, ended)
    log.info("%s: %s, %s", ended.model, outcome, reason)
    return ended


def record_failure(workspace: Workspace, why: str) -> None:
    """Write down and tell why a run failed; people are told also where the settings cannot be read or the ledger is out of reach."""
    name = workspace.origin.name
    with suppress(BadParams):
        name = read_name(workspace)
    ended = outcome_of(workspace, name, FAILED, why)
    try:
        write(workspace, ended)
    except RetuneError as error:
        log.error("could not record the failed run in the ledger: %s", error)
    announce(workspace, ended)


def write(workspace: Workspace, ended: Retraining) -> None:
    """Write how a run ended into the ledger, and let MLflow keep the ledger's head where there is a registry.

    What is written is written: where MLflow is out of reach, the next run lets it keep the head, and this one has not failed.
    """
    Ledger(workspace.ledger).record_retraining(ended)
    try:
        registry.confirm(champion_of(workspace).mlflow, workspace.ledger, ended.model)
    except NotFound:
        log.debug("there is no registry yet that could keep the ledger's head")
    except RetuneError as error:
        log.error("how the run ended is in the ledger, whose head MLflow does not keep yet; the next run does it: %s", error)


def outcome_of(workspace: Workspace, model: str, outcome: str, reason: str, version: int | None = None, made_with: str = "") -> Retraining:
    """Return how a run ended, as the ledger keeps it; `made_with` is the hash of `basis`, which only runs have that made a version."""
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
def announce(workspace: Workspace, ended: Retraining, result: Result | None = None, more: str = "") -> None:
    """Tell people: the verdict with every gate's reason, or why the run failed, and where to read on."""
    what = f"{cell(ended.model)} version {ended.version}" if ended.version else cell(ended.model)
    said = (workspace.reports / VERDICT).read_text(encoding="utf-8") if result is not None else escape(ended.reason)
    notify(workspace.project, f"{ended.outcome}: {what}", f"{said}{escape(more)}\n\nRead on: {where(workspace.project, ended)}")


def where(project: Path, ended: Retraining) -> str:
    """Return where a person reads on: the version's page or the run's, or a command."""
    settings = read_settings(project)
    if ended.version is not None:
        page = f"{settings.mlflow_uri}/#/models/{quote(ended.model, safe='')}/versions/{ended.version}"
        return page if settings.mlflow_uri else f"retune why {cell(ended.model)} {ended.version}"
    if settings.prefect_api_url and ended.flow_run:
        return f"{settings.prefect_api_url.removesuffix('/api')}/runs/flow-run/{ended.flow_run}"
    return "`retune status --all`"
