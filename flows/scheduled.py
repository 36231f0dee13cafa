"""The story of a schedule: look whether there is something to learn, and only then make the model anew, in a checkout.

flows/deployed.py tells it in a worker of Prefect's, `retune retrain` for a person or another scheduler.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from components.artifacts.manifest import Manifest
from components.errors import NotThere, RetuneError
from components.ledger import Ledger, Retraining
from components.locks import hold, hold_shared, shared_database
from components.snapshot import new_labels, take_snapshot
from flows import dvc
from flows.brought import FAILED as FAILED
from flows.brought import SKIPPED as SKIPPED
from flows.brought import last_made, lay_inputs
from flows.checkout import RUNS, basis, enter_checkout
from flows.effects import Result, read_name
from flows.engine import current_flow_run, task
from flows.notify import notify
from flows.pages import VERDICT
from flows.params import read_params
from flows.retrain import line
from flows.run import alone
from flows.settings import read_settings
from flows.workspace import Workspace

log = logging.getLogger(__name__)

SECONDS = 5.0  # that a run waits for one that is about to end


@dataclass(frozen=True)
class News:
    """Whether there is something to do, and why or why not."""

    worth: bool
    reason: str


def retrain(model: str) -> Retraining:
    """Look for news of a model; where there are any, make it anew, keep what was made for others, and tell people."""
    workspace = enter_checkout(model)
    with alone(workspace), in_turn(workspace):
        bring(workspace)
        news = look(workspace)
        if not news.worth:
            return note(workspace, SKIPPED, news.reason)
        log.info("%s", news.reason)
        try:
            result = line(workspace)
            push(workspace)
        except RetuneError as error:
            announce(workspace, note(workspace, FAILED, str(error)))
            raise
        ended = note(workspace, str(result.outcome), result.reason, result.version)
        announce(workspace, ended, result)
        return ended


@contextmanager
def in_turn(workspace: Workspace) -> Iterator[None]:
    """Hold the model among all scheduled runs of it, on this machine or on all that share a database.

    Raises:
        Unavailable: another run of the model is at work.
    """
    name, shared = read_name(workspace), shared_database()
    with hold_shared(shared, f"retrain {name}", SECONDS) if shared else hold(workspace.project / RUNS / f"{name}.lock", SECONDS):
        yield


@task
def bring(workspace: Workspace) -> None:
    """Lay the data and the base model of the last run into the checkout, from DVC's cache or its remote, so that equal ones stay equal."""
    lay_inputs(workspace)


@task
def look(workspace: Workspace) -> News:
    """Say whether the data, the code or the settings are others than those of the last run."""
    last = last_made(workspace)
    if last is None:
        return News(True, "the first run of this schedule")
    if last.basis != basis(workspace):
        return News(True, f"code or settings are others than in the run of {last.at:%Y-%m-%d %H:%MZ}")
    return compare(workspace)


def compare(workspace: Workspace) -> News:
    """Say whether the source has enough labels that the last snapshot has not; a snapshot of it is taken aside."""
    params, aside = read_params(workspace.params), workspace.root / "data/news"
    try:
        before = Manifest.read(workspace.raw)
    except NotThere:
        return News(True, "the snapshot of the last run is gone")
    try:
        now = take_snapshot(workspace.origin, aside, snapshot=params.snapshot, required=params.made_task.columns)
        if now.digest == before.digest:
            return News(False, f"no new data: the {before.rows:,} rows are the snapshot of {before.taken_at}")
        fresh, wanted = new_labels(workspace.raw, aside), params.retrain.min_new_labels
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if fresh < wanted:
        return News(False, f"{fresh:,} new labels since {before.taken_at}, fewer than retrain.min_new_labels {wanted:,}")
    return News(True, f"{fresh:,} new labels since {before.taken_at}")


@task
def push(workspace: Workspace) -> None:
    """Send what was made to DVC's remote, also what a stage would make again, so that another worker need not."""
    dvc.dvc(["push", "--quiet", "--run-cache"], workspace.root, what="dvc push --run-cache", level=logging.DEBUG)


def note(workspace: Workspace, outcome: str, reason: str, version: int | None = None) -> Retraining:
    """Write down how the run ended, also that there was nothing to do."""
    ended = Retraining(
        model=read_name(workspace),
        at=datetime.now(UTC),
        outcome=outcome,
        reason=reason,
        version=version,
        basis=basis(workspace),
        git_commit=workspace.commit,
        flow_run=current_flow_run(),
    )
    Ledger(workspace.ledger).note(ended)
    log.info("%s: %s, %s", ended.model, outcome, reason)
    return ended


@task
def announce(workspace: Workspace, ended: Retraining, result: Result | None = None) -> None:
    """Tell people: the verdict with every gate's reason, or why the run failed, and where to read on."""
    what = f"{ended.model} version {ended.version}" if ended.version else ended.model
    said = (workspace.reports / VERDICT).read_text(encoding="utf-8") if result is not None else ended.reason
    server = read_settings(workspace.project).mlflow_uri
    link = f"{server}/#/models/{ended.model}/versions/{ended.version}" if server else f"`retune why {ended.model} {ended.version or ''}`"
    notify(workspace.project, f"{ended.outcome}: {what}", f"{said}\n\nRead on: {link}")
