"""The story of a schedule: look whether there is something to learn, and only then make the model anew, in a checkout.

flows/schedule/prefect_flows.py tells it in a worker of Prefect's, `retune retrain` for a person or another scheduler.
"""

import logging
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from components.artifacts.manifest import SnapshotManifest
from components.core.errors import Cancelled, NotFound, RetuneError, StageFailed, Unavailable
from components.core.locks import LockTimeout
from components.core.markdown import cell, escape
from components.data.snapshot import new_labels, take_snapshot
from components.ledger import Retraining
from flows.dvc_adapter import repro
from flows.dvc_adapter.repro import RUNNING
from flows.orchestrator.prefect_adapter import current_flow_run, task
from flows.pipeline import actions
from flows.pipeline.actions import read_name
from flows.pipeline.retrain import run_pipeline
from flows.project.checkout import enter_checkout, project_of
from flows.project.params import read_params
from flows.project.run_locks import RUNS, folder_lock, run_lock
from flows.project.workspace import Workspace, sync_workspace
from flows.schedule.last_run_inputs import FAILED, SKIPPED, basis, last_made, restore_last_inputs
from flows.schedule.notify import notify
from flows.schedule.run_outcome import announce, record_failure, record_outcome

log = logging.getLogger(__name__)

BEGUN, MADE = "begun", "made"  # what a mark says


@dataclass(frozen=True)
class ChangeCheck:
    """Whether there is something to do, and why or why not."""

    worth: bool
    reason: str


def retrain(model: str) -> Retraining:
    """Look for news of a model; where there are any, make it anew, keep what was made for others, and tell people.

    However it fails once it has found the model, that is written down and told.
    """
    try:
        workspace = enter_checkout(model)
    except RetuneError as error:
        if current_flow_run():  # nobody is there to read it
            notify(project_of(), f"{FAILED}: {cell(model or 'the model of the project')}", escape(error))
        raise
    try:
        with ExitStack() as held:
            held.enter_context(folder_lock(workspace.root))
            if not lock_model(workspace, held):
                return record_outcome(workspace, SKIPPED, "another run of the model is at work")
            sync_workspace(workspace)  # only now: what DVC knows is what the run before left
            return run_if_changed(workspace)
    except (Cancelled, PushFailed):
        raise
    except RetuneError as error:
        record_failure(workspace, str(error))
        raise
    except Exception as error:  # its text is for those who read the log: it may say more than people are to be told
        record_failure(workspace, f"{type(error).__name__}; the run's log says more")
        raise


def lock_model(workspace: Workspace, held: ExitStack) -> bool:
    """Hold the model until `held` ends; where another run has it, wait for that one if `retrain.on_overlap` says so, else return False."""
    params, told = read_params(workspace.params), False
    while not RUNNING.cancelled.is_set():
        try:
            held.enter_context(run_lock(workspace.project, params.name))
            return True
        except LockTimeout:
            if params.retrain.on_overlap == "skip":
                return False
            if not told:
                log.info("waiting for another run of %s to end, as retrain.on_overlap says", params.name)
            told = True
    raise Cancelled("the run was cancelled while it waited for another run of the model")


def run_if_changed(workspace: Workspace) -> Retraining:
    """Tell it, alone with the model; what follows a verdict does not change it."""
    left = mark(workspace).read_text(encoding="utf-8") if mark(workspace).exists() else ""
    if left == MADE:
        retry_push(workspace)
    fetch_new_data(workspace)
    news = ChangeCheck(True, "the last run ended before all was done") if left == BEGUN else check_for_changes(workspace)
    if not news.worth:
        return record_outcome(workspace, SKIPPED, news.reason)
    log.info("%s", news.reason)
    mark(workspace).write_text(BEGUN, encoding="utf-8")
    result = run_pipeline(workspace)
    ended, fault = record_outcome(workspace, str(result.outcome), result.reason, result.version), None
    mark(workspace).write_text(MADE, encoding="utf-8")
    try:
        push(workspace)
    except RetuneError as error:
        fault = error
    announce(workspace, ended, result, f"\n\nNot on DVC's remote yet, the next run sends it: {fault}" if fault else "")
    if fault:
        raise PushFailed(str(fault)) from fault
    return ended


class PushFailed(Unavailable):
    """A verdict was reached and stands, and what was made is on this machine only."""


@task
def fetch_new_data(workspace: Workspace) -> None:
    """Lay the data and the base model of the last run into the checkout, from DVC's cache or its remote, so that equal ones stay equal."""
    restore_last_inputs(workspace)


@task
def check_for_changes(workspace: Workspace) -> ChangeCheck:
    """Say whether the data, the code, the settings or the base model are others than those of the last run."""
    last = last_made(workspace)
    if last is None:
        return ChangeCheck(True, "the first run of this schedule")
    actions.pin_base(workspace)
    if last.basis != basis(workspace):
        return ChangeCheck(True, f"code, settings or base model are others than in the run of {last.at:%Y-%m-%d %H:%MZ}")
    return compare(workspace)


def compare(workspace: Workspace) -> ChangeCheck:
    """Say whether the source has enough labels that the last snapshot has not; a snapshot of it is taken aside."""
    params, aside = read_params(workspace.params), workspace.root / "data/news"
    try:
        before = SnapshotManifest.read(workspace.raw)
    except NotFound:
        return ChangeCheck(True, "the snapshot of the last run is gone")
    try:
        now = take_snapshot(workspace.origin, aside, snapshot=params.snapshot, required=params.made_task.columns)
        if now.digest == before.digest:
            return ChangeCheck(False, f"no new data: the {before.rows:,} rows are the snapshot of {before.taken_at}")
        fresh, wanted = new_labels(workspace.raw, aside), params.retrain.min_new_labels
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if fresh < wanted:
        return ChangeCheck(False, f"{fresh:,} new labels since {before.taken_at}, fewer than retrain.min_new_labels {wanted:,}")
    return ChangeCheck(True, f"{fresh:,} new labels since {before.taken_at}")


def mark(workspace: Workspace) -> Path:
    """Return the file that is there while a run is not done: BEGUN until its end is written down, MADE until it is on DVC's remote."""
    return workspace.project / RUNS / f"{read_name(workspace)}.open"


def retry_push(workspace: Workspace) -> None:
    """Send what the last run made, while DVC's files in the checkout are still those that it left."""
    try:
        push(workspace)
    except Unavailable as error:
        log.warning("what the last run made is still not on DVC's remote: %s", error)


@task
def push(workspace: Workspace) -> None:
    """Send what was made to DVC's remote, with the hashes of what each stage ran on; the mark that says it is due is removed.

    Raises:
        Unavailable: the remote did not take it.
    """
    try:
        repro.dvc(["push", "--run-cache"], workspace.root, what="dvc push --run-cache", level=logging.DEBUG)
    except StageFailed as error:
        raise Unavailable(str(error)) from error
    mark(workspace).unlink(missing_ok=True)
