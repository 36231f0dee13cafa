"""The flows that Prefect's workers run: `prefect.yaml` deploys them, and `retune deploy` one `retrain` a model.

Prefect is imported here at once: only a process that Prefect started, or `prefect deploy`, reads this file.
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
from flows.project.checkout import project_of, remove
from flows.project.run_locks import RUNS
from flows.schedule import scheduled_retrain
from flows.schedule.last_run_inputs import SKIPPED
from flows.settings import read_settings

quiet_environment()
for room in ("components", "flows"):  # whose lines Prefect shows on the run's page
    logging.getLogger(room).setLevel(logging.INFO)

Model = Annotated[str, Field(description="a model of this project, by its name in the registry; blank: the project's own")]


@flow(name="retrain", persist_result=False)
def retrain(model: Model = "") -> State:
    """Make a model anew where there is something to learn: the whole line, from the snapshot to a verdict and what follows from it."""
    remove_checkout_at_exit()
    orphaned_runs.close(os.environ["PREFECT_API_URL"], managed=not read_settings(project_of()).prefect_api_url)
    with prefect_adapter.joined():
        ended = scheduled_retrain.retrain(model)
    return Completed(name=ended.outcome.title() if ended.outcome == SKIPPED else None, message=f"{ended.outcome}: {ended.reason}")


@flow(name="promote", persist_result=False)
def promote(
    model: Annotated[str, Field(min_length=1, description="a registered model's name")],
    version: Annotated[int, Field(ge=1, description="the version that passed")],
    why: Annotated[str, Field(description="the reason; the verdict's when blank")] = "",
) -> str:
    """Make a version that passed the champion, after it has answered ten rows in a fresh process."""
    with prefect_adapter.joined():
        done = promotion.promote(promotion.environment(), model, version, who=f"{promotion.person()} (Prefect)", why=why or None)
    return f"version {done.entry.version} is champion"


@flow(name="prune", persist_result=False)
def prune(
    keep: Annotated[int, Field(ge=1, description="how many of the newest versions stay without another reason")] = 5,
    delete: Annotated[bool, Field(description="delete; otherwise only say what could be deleted")] = False,
) -> str:
    """Delete versions, files and unfinished work that nothing reaches."""
    from flows.audit.prune import prune as carry_out

    with prefect_adapter.joined():
        found = carry_out(None, keep, really=delete)
    return "; ".join(f"{count} × {kind}, {size} bytes" for kind, (count, size) in found.totals().items()) or "nothing to delete"


def remove_checkout_at_exit() -> None:
    """Remove the checkout that this process works in when it ends."""
    for home in Path.cwd().parents:
        if home.parent.parts[-2:] == Path(RUNS).parts:
            atexit.register(remove, home.parents[2], home)
            return
