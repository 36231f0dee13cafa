"""Report the state of every model of a project and of the services that `retune up` started."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx

from components.core.errors import NotFound
from components.ledger import Ledger
from components.mlflow_store import registry
from components.mlflow_store.registry import Environment
from flows.orchestrator.prefect_api import post
from flows.orchestrator.server import running
from flows.orchestrator.services import health, read_state
from flows.project.models import ModelFolder, find_models
from flows.project.stores import champion_of
from flows.project.workspace import Workspace, open_project
from flows.settings import Settings, read_settings

SECONDS = 5.0


@dataclass(frozen=True)
class FleetRow:
    """One model: champion and its `age`, the newest version's verdict, the last and next scheduled run, and waiting requests."""

    model: str
    champion: int | None
    age: str | None
    verdict: str | None
    last_run: str | None
    next_run: str | None
    waiting: int


def fleet_status() -> tuple[list[FleetRow], dict[str, str]]:
    """Return one row per model of the project above the working folder, and the health of each service.

    Raises:
        BadParams: a model's folder cannot be read.
        Unavailable: the registry or the ledger is unreachable.
    """
    project = open_project()
    settings, models = read_settings(project.project), find_models(project.project)
    due = next_runs(project, settings)
    try:
        environment = champion_of(project)
    except NotFound:  # nothing is recorded here yet
        environment = None
    state = read_state(project.var)
    services = health(state) if state else {"services": "not running; `retune up` starts them"}
    return [fleet_row(model, environment, due) for model in models], services


def fleet_row(model: ModelFolder, environment: Environment | None, due: Mapping[str, str] | None) -> FleetRow:
    """Return the row of a model; `due` is None if no Prefect server answers."""
    next_run = "Prefect is not running" if due is None else due.get(model.name)
    if environment is None:
        return FleetRow(model.name, None, None, None, None, next_run, 0)
    ledger, versions = Ledger(environment.ledger), registry.versions(environment.mlflow, model.name)
    head, ended = ledger.head(model.name), ledger.retrainings(model.name)
    return FleetRow(
        model=model.name,
        champion=head.version if head else None,
        age=age(datetime.now(UTC) - head.at) if head else None,
        verdict=f"{versions[-1].verdict or 'none'} (version {versions[-1].number})" if versions else None,
        last_run=f"{ended[0].outcome}, {age(datetime.now(UTC) - ended[0].at)} ago" if ended else None,
        next_run=next_run,
        waiting=len(ledger.open_requests(model.name)),
    )


def next_runs(project: Workspace, settings: Settings) -> dict[str, str] | None:
    """Return the next scheduled run of each model from Prefect; None if it does not answer."""
    api = settings.prefect_api_url or running(project.var / "prefect")
    if not api:
        return None
    query = {
        "flows": {"name": {"any_": ["retrain"]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        "sort": "EXPECTED_START_TIME_ASC",
    }
    try:
        runs = post(f"{api}/flow_runs/filter", query, SECONDS).json()
    except httpx.HTTPError:
        return None
    return earliest(runs)


def earliest(runs: Sequence[Mapping[str, object]]) -> dict[str, str]:
    """Return the first start of each model from scheduled flow runs in order of start. Pure."""
    starts: dict[str, str] = {}
    for run in runs:
        parameters = run.get("parameters")
        if isinstance(parameters, dict) and parameters.get("model"):
            starts.setdefault(str(parameters["model"]), str(run["expected_start_time"])[:16].replace("T", " ") + "Z")
    return starts


def age(passed: timedelta) -> str:
    """Format a duration: 3 min, 5 h, 12 d."""
    minutes = int(passed.total_seconds() // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} d"
