"""Scheduled retraining: check for changes, and only then run the pipeline, in a checkout.

Called by flows/schedule/prefect_flows.py in a Prefect worker, and by `retune retrain` for users and other schedulers.
"""

import logging
import shutil
from contextlib import ExitStack
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
from flows.pipeline.retrain import run_pipeline
from flows.project.checkout import enter_checkout, project_of
from flows.project.params import read_params
from flows.project.run_locks import RUNS, folder_lock, run_lock
from flows.project.workspace import Workspace, sync_workspace
from flows.schedule.last_run_inputs import FAILED, SKIPPED, basis, fetch_new_data, last_made
from flows.schedule.notify import notify
from flows.schedule.run_outcome import announce, record_failure, record_outcome

log = logging.getLogger(__name__)

BEGUN, MADE = "begun", "made"  # contents of the mark file


def retrain(model: str) -> Retraining:
    """Check a model for changes; if there are any, run the pipeline, push the results, and notify.

    Every failure after the model was found is recorded in the ledger and notified.
    """
    try:
        workspace = enter_checkout(model)
    except RetuneError as error:
        if current_flow_run():  # no user sees the output
            notify(project_of(), f"{FAILED}: {cell(model or 'the model of the project')}", escape(error))
        raise
    try:
        with ExitStack() as locks:
            locks.enter_context(folder_lock(workspace.root))
            if not lock_model(workspace, locks):
                return record_outcome(workspace, SKIPPED, "another run of the model is active")
            sync_workspace(workspace)  # with the lock: uses the DVC files that the previous run left
            return run_if_changed(workspace)
    except PushFailed:
        raise
    except RetuneError as error:
        record_failure(workspace, str(error))
        raise
    except Exception as error:  # its text may be confidential and goes to the log only
        record_failure(workspace, f"{type(error).__name__}; see the log of the run")
        raise


def lock_model(workspace: Workspace, locks: ExitStack) -> bool:
    """Lock the model until `locks` closes; if another run holds it, wait or return False, according to `retrain.on_overlap`."""
    params, waiting = read_params(workspace.params), False
    while not RUNNING.cancelled.is_set():
        try:
            locks.enter_context(run_lock(workspace.project, params.name))
            return True
        except LockTimeout:
            if params.retrain.on_overlap == "skip":
                return False
            if not waiting:
                log.info("waiting for another run of %s to end (retrain.on_overlap)", params.name)
            waiting = True
    raise Cancelled("the run was cancelled while it waited for another run of the model")


def run_if_changed(workspace: Workspace) -> Retraining:
    """Run the pipeline if something changed; the caller holds the lock of the model. A failed push does not change the verdict."""
    state = mark(workspace).read_text(encoding="utf-8") if mark(workspace).exists() else ""
    if state == MADE:
        try:  # while the DVC files in the checkout are still those of the last run
            push(workspace)
        except Unavailable as error:
            log.warning("the results of the last run could not be pushed to DVC's remote: %s", error)
    fetch_new_data(workspace)
    changed, reason = (True, "the last run was interrupted") if state == BEGUN else check_for_changes(workspace)
    if not changed:
        return record_outcome(workspace, SKIPPED, reason)
    log.info("%s", reason)
    mark(workspace).write_text(BEGUN, encoding="utf-8")
    result = run_pipeline(workspace)
    retraining, fault = record_outcome(workspace, str(result.outcome), result.reason, result.version), None
    mark(workspace).write_text(MADE, encoding="utf-8")
    try:
        push(workspace)
    except RetuneError as error:
        fault = error
    announce(workspace, retraining, result, f"\n\nThe push to DVC's remote failed, the next run retries it: {fault}" if fault else "")
    if fault:
        raise PushFailed(str(fault)) from fault
    return retraining


class PushFailed(Unavailable):
    """A verdict was reached, but the results are on this host only."""


@task
def check_for_changes(workspace: Workspace) -> tuple[bool, str]:
    """Compare data, code, settings and base model with those of the last run; return whether to run the pipeline, and why."""
    last = last_made(workspace)
    if last is None:
        return True, "the first run of this schedule"
    actions.pin_base(workspace)
    if last.basis != basis(workspace):
        return True, f"code, settings or base model changed since the run of {last.at:%Y-%m-%d %H:%MZ}"
    return check_data(workspace)


def check_data(workspace: Workspace) -> tuple[bool, str]:
    """Compare the source with the last snapshot, and count new labels; takes a temporary snapshot."""
    params, temporary = read_params(workspace.params), workspace.root / "data/news"
    try:
        before = SnapshotManifest.read(workspace.raw)
    except NotFound:
        return True, "the snapshot of the last run is missing"
    try:
        now = take_snapshot(workspace.origin, temporary, snapshot=params.snapshot, required=params.made_task.columns)
        if now.digest == before.digest:
            return False, f"no new data: the {before.rows:,} rows equal the snapshot of {before.taken_at}"
        count, minimum = new_labels(workspace.raw, temporary), params.retrain.min_new_labels
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if count < minimum:
        return False, f"{count:,} new labels since {before.taken_at}, fewer than retrain.min_new_labels {minimum:,}"
    return True, f"{count:,} new labels since {before.taken_at}"


def mark(workspace: Workspace) -> Path:
    """Return the file that marks an unfinished run: BEGUN until the outcome is recorded, MADE until the results are pushed."""
    return workspace.project / RUNS / f"{read_params(workspace.params).name}.open"


@task
def push(workspace: Workspace) -> None:
    """Push the results and the run cache to DVC's remote and remove the mark; raise Unavailable if that fails."""
    try:
        repro.dvc(["push", "--run-cache"], workspace.root, what="dvc push --run-cache", level=logging.DEBUG)
    except StageFailed as error:
        raise Unavailable(str(error)) from error
    mark(workspace).unlink(missing_ok=True)
