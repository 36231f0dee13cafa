"""Keep the report page in a model's workspace up to date after a decision of a person."""

import logging
from pathlib import Path

from components import report
from components.core.errors import RetuneError
from components.ledger import Ledger
from components.mlflow_store import registry
from components.mlflow_store.registry import Environment
from flows.project.models import find_model
from flows.project.stores import LOCAL
from flows.project.workspace import find_project, workspace_of

log = logging.getLogger(__name__)


def refresh_page(env: Environment, model: str) -> None:
    """Write who is champion, and what waits, to the page of a model's last run in this project; a fault is only logged."""
    if env.name != LOCAL:
        return
    try:
        project = find_project(Path.cwd().resolve())
        page = workspace_of(project, find_model(project, model).params).reports / "index.html"
        if page.is_file():
            _refresh(env, model, page)
    except (RetuneError, OSError) as error:
        log.info("the report page of %s is unchanged: %s", model, error)


def _refresh(env: Environment, model: str, page: Path) -> None:
    versions = registry.versions(env.mlflow, model)
    shown = next((each for each in versions if each.verdict_key and report.shows(page, each.verdict_key, str(each.number))), None)
    verdict = registry.read_verdict(env.mlflow, shown) if shown else None
    if shown is None or verdict is None:
        return
    ledger = Ledger(env.ledger)
    head = ledger.head(model)
    waits = next((each for each in ledger.requests(model) if each.version == shown.number and each.is_open()), None)
    run, until = (waits.run[:12], waits.expires_at) if waits else ("", None)
    report.update_standing(page, model, verdict, str(shown.number), report.Standing(str(head.version) if head else None, run, until))
