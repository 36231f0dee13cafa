"""The flows that Prefect's workers run: deployed by `prefect.yaml`, and `retrain` once per model by `retune deploy`.

This module imports Prefect eagerly: only processes that Prefect starts, and `prefect deploy`, import it.
"""

import atexit
import logging
import os
from pathlib import Path
from typing import Annotated

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from components.core.process import quiet_environment
from flows.orchestrator import orphaned_runs, prefect_adapter
from flows.production import promotion
from flows.project.checkout import home_of, is_checkout, project_of, remove
from flows.schedule import scheduled_retrain
from flows.schedule.last_run_inputs import SKIPPED
from flows.settings import read_settings

quiet_environment()
for package in ("components", "flows"):  # shown on the run's page in Prefect
    logging.getLogger(package).setLevel(logging.INFO)

Model = Annotated[str, Field(description="a model of this project, by its registered name; blank: the model of params.yaml")]


@flow(name="retrain", persist_result=False)
def retrain(model: Model = "") -> State:
    """Retrain a model if code, settings or data have changed: the whole pipeline, from snapshot to verdict and promotion."""
    project = project_of()
    if is_checkout(project):
        atexit.register(remove, project, home_of(project, Path.cwd()))
    orphaned_runs.close(os.environ["PREFECT_API_URL"], managed=not read_settings(project).prefect_api_url)
    with prefect_adapter.joined():
        result = scheduled_retrain.retrain(model)
    return Completed(name=result.outcome.title() if result.outcome == SKIPPED else None, message=f"{result.outcome}: {result.reason}")


@flow(name="promote", persist_result=False)
def promote(
    model: Annotated[str, Field(min_length=1, description="a registered model's name")],
    version: Annotated[int, Field(ge=1, description="the version that passed")],
    why: Annotated[str, Field(description="the reason; the verdict's when blank")] = "",
) -> str:
    """Make a version that passed the champion, after it has answered ten rows in a new process."""
    with prefect_adapter.joined():
        done = promotion.promote(promotion.environment(), model, version, who=f"{promotion.person()} (Prefect)", why=why or None)
    return f"version {done.entry.version} is champion"


@flow(name="prune", persist_result=False)
def prune(
    keep: Annotated[int, Field(ge=1, description="number of the newest versions to keep in any case")] = 5,
    delete: Annotated[bool, Field(description="delete; otherwise only report what would be deleted")] = False,
) -> str:
    """Delete unused versions, files and unfinished work."""
    from flows.audit.prune import prune as run

    with prefect_adapter.joined():
        plan = run(None, keep, really=delete)
    return "; ".join(f"{count} × {category}, {size} bytes" for category, (count, size) in plan.totals().items()) or "nothing to delete"
