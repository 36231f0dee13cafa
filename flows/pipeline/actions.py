"""The actions of a run: snapshot, DVC stages, MLflow runs, registry, ledger, promotion.

Each action is idempotent: it first checks whether it was done, and repairs what an interrupted one left.
"""

import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from components.artifacts.manifest import BaseManifest, SnapshotManifest
from components.artifacts.verdict import Outcome, Verdict
from components.core.documents import read_yaml
from components.core.errors import BadInput, NotFound, StageFailed, Unavailable
from components.core.locks import shared_database
from components.data.base_model import pin_base as pin
from components.data.snapshot import take_snapshot
from components.ledger import Entry, Ledger, Request
from components.mlflow_store import registry, tracking
from components.mlflow_store.registry import Environment
from flows.dvc_adapter import file_integrity, lock, repro
from flows.pipeline import evidence, historical_data
from flows.pipeline.judge import JudgeResult
from flows.pipeline.lineage import commit_of, lineage_of
from flows.production import events, promotion
from flows.project.git import uncommitted
from flows.project.params import read_params
from flows.project.stores import LOCAL, find_registered, store
from flows.project.workspace import Workspace, copy_lock_files_back

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """The result of a stage, with its wall-clock seconds; `live` is the MLflow run that followed its training."""

    name: str
    result: repro.StageResult
    seconds: float
    live: str | None


@dataclass(frozen=True)
class Result:
    """The result of a run: verdict and champion. `waits_until` is set if approval is needed; `run` is the MLflow run id."""

    model: str
    version: int
    outcome: Outcome
    reason: str
    champion: int | None
    promoted: bool
    up_to_date: bool
    page: Path
    run: str
    waits_until: datetime | None = None


def check(workspace: Workspace) -> None:
    """Check all settings before any work, prepare the store, and close MLflow runs of killed processes."""
    params = read_params(workspace.params)
    commit_of(workspace)
    repro.check_pipeline(workspace.root)
    evidence.outside_digests(workspace, params)
    uri = store(workspace)
    exclusive = shared_database() is not None or uri.startswith("sqlite:")
    if closed := tracking.close_orphaned_runs(uri, params.name, exclusive=exclusive):
        log.warning("closed %d MLflow runs whose processes no longer exist", closed)
    reconcile(workspace, uri, params.name)
    historical_data.check_splits(workspace, uri, params)


def reconcile(workspace: Workspace, uri: str, name: str) -> None:
    """Repair the aliases and the approval requests in the registry from the ledger."""
    for repair in promotion.sync_registry(Environment(LOCAL, uri, workspace.ledger), name):
        log.warning("%s: %s", name, repair)


def snapshot(workspace: Workspace, source: str | None = None) -> SnapshotManifest:
    """Take a snapshot of the current data; unchanged data keep the existing snapshot."""
    params = read_params(workspace.params)
    settings, required = params.snapshot, params.made_task.columns
    if source is not None:
        settings = settings.at(source if "://" in source or not source.strip() else str(Path(source).resolve()))
    repair_input(workspace, workspace.raw)
    return take_snapshot(workspace.origin, workspace.raw, snapshot=settings, required=required, progress=_log_rows)


def _log_rows(rows: int) -> None:
    if rows % 100_000 == 0:
        log.info("read %d rows", rows)


def pin_base(workspace: Workspace) -> BaseManifest:
    """Copy the base model into the workspace with a hash of every file; a registry alias is resolved again."""
    base = read_params(workspace.params).base
    repair_input(workspace, workspace.base)
    return pin(workspace.origin, workspace.base, base=base, registered=partial(find_registered, workspace))


def repair_input(workspace: Workspace, folder: Path) -> None:
    """Fetch a damaged snapshot or base model from DVC's remote; if the remote has no intact copy, remove it, so that it is rebuilt."""
    path = folder.relative_to(workspace.root).as_posix()
    for fetch in (True, False):
        if not (damaged := file_integrity.damaged_input(workspace.root, folder)):
            return
        file_integrity.drop_input(workspace.root, folder, damaged, digest := lock.tracked_md5(workspace.root, path))
        if fetch and digest is not None:
            _pull_if_available(workspace.root, f"{path}.dvc")


def _pull_if_available(root: Path, *targets: str) -> None:
    """Pull targets from DVC's remote, as far as it has them."""
    for target in targets:
        try:
            repro.pull(target, root)
        except (StageFailed, Unavailable) as error:
            log.info("could not pull %s, it will be rebuilt: %s", target, error)


def put_under_dvc(workspace: Workspace) -> frozenset[str]:
    """Add snapshot and base model to DVC, and return the unchanged stages: those that depend on nothing that changed."""
    changed = repro.changed(workspace.root)
    files = {folder.relative_to(workspace.root).as_posix() + ".dvc": folder for folder in (workspace.raw, workspace.base)}
    if new := [folder for file, folder in files.items() if file in changed or not (workspace.root / file).exists()]:
        repro.add_to_dvc(new, workspace.root)
    copy_lock_files_back(workspace)
    unchanged = lock.unchanged_stages(workspace.root, changed)
    used = {name for stage in unchanged for name in lock.depends_on(workspace.root, stage)}
    if damaged := _remove_damaged(workspace.root, used, fetch=True):
        names = ", ".join(damaged)
        log.warning("outputs that were built from the damaged outputs of %s are kept: `dvc repro --force` rebuilds them", names)
    return lock.unchanged_stages(workspace.root, {*changed, *damaged})


def reproduce(workspace: Workspace, stage: str) -> Stage:
    """Bring one stage up to date with DVC; while it trains, MLflow follows the training history."""
    started = time.monotonic()
    with tracking.follow(workspace.history, store(workspace), read_params(workspace.params).name) as followed:
        try:
            result = reproduce_intact(stage, workspace.root)
        except (BadInput, StageFailed) as error:
            if workspace.root == workspace.project:
                raise
            # The stage names the files of its workspace.
            raise type(error)(
                f"{error}\nparams.yaml is {workspace.params}, and data/, models/ and reports/ are in {workspace.root}"
            ) from error
    copy_lock_files_back(workspace)
    log.info("%s: %s", stage, result)
    return Stage(stage, result, time.monotonic() - started, followed.run_id)


def reproduce_intact(stage: str, root: Path) -> repro.StageResult:
    """Bring a stage up to date with DVC; damaged outputs from its cache are removed, then fetched from its remote or rebuilt.

    Raises:
        StageFailed: outputs are still damaged after three attempts.
    """
    for attempt in range(3):
        result = repro.reproduce_stage(stage, root)
        if not (damaged := _remove_damaged(root, lock.depends_on(root, stage), fetch=attempt == 0)):
            return result
    raise StageFailed(f"the outputs of {', '.join(damaged)} in {root} are damaged again after they were rebuilt: check the disk")


def _remove_damaged(root: Path, stages: Collection[str], fetch: bool) -> list[str]:
    """Remove outputs that differ from dvc.lock, also from DVC's cache; with `fetch`, pull intact ones. Return the stages that had any."""
    damaged = {stage: files for stage in sorted(stages) if (files := file_integrity.damaged_outputs(root, [stage]))}
    for files in damaged.values():
        file_integrity.drop(root, files)
    if fetch:
        _pull_if_available(root, *damaged)
    return list(damaged)


def unchanged_stage(stage: str) -> Stage:
    """Return the result of a stage that is known to be unchanged."""
    log.info("%s: %s", stage, repro.StageResult.UNCHANGED)
    return Stage(stage, repro.StageResult.UNCHANGED, 0.0, None)


def record(workspace: Workspace, stages: Sequence[Stage]) -> tracking.RecordedRun:
    """Record the outputs of the stages in MLflow, once per candidate.

    Raises:
        BadInput: the settings changed since the model was built.
        NotFound: an output is missing, stale or damaged.
    """
    name, root = read_params(workspace.params).name, workspace.root
    if not stages:  # called without a pipeline run: check what it would have checked
        repro.check_pipeline(root)
    if edited := ", ".join(lock.edited_params(root)):
        raise BadInput(f"{workspace.params}: {edited} changed since the model was built; `dvc repro` or `retune run` rebuilds it")
    if stale := lock.overtaken_stages(root):
        reasons = "; ".join(f"{stage} ran with another {', '.join(paths)}" for stage, paths in stale.items())
        raise NotFound(f"{root / 'dvc.lock'} is stale: {reasons}; `dvc repro` or `retune run` rebuilds it")
    if not stages and (changes := ", ".join(sorted(repro.changed(root)))):
        raise NotFound(f"{root}: {changes} changed since the model was built; `dvc repro` or `retune run` rebuilds it")
    if not stages and (damaged := ", ".join(file_integrity.damaged_outputs(root, lock.locked_stages(root)))):
        raise NotFound(f"{root}: {damaged} is damaged: its hash differs from dvc.lock; `retune run` restores or rebuilds it")
    lineage = lineage_of(workspace, name, tracking.run_key(root))
    params = read_yaml(workspace.params)
    live = next((stage.live for stage in stages if stage.live), None)
    diff = partial(uncommitted, workspace.project)  # of the project: git ignores var/, where workspaces are
    return tracking.record(root, store(workspace), lineage=lineage, params=params, live=live, uncommitted=diff)


def register(workspace: Workspace, run: tracking.RecordedRun) -> registry.Version:
    """Register the candidate; the same model and data give the same version."""
    lineage = lineage_of(workspace, read_params(workspace.params).name, run.key)
    return registry.register(workspace.root, store(workspace), run_id=run.run_id, key=run.key, lineage=lineage)


def apply_verdict(workspace: Workspace, run: tracking.RecordedRun, version: registry.Version, judged: JudgeResult) -> Result:
    """Apply the verdict: promote after PASS, request approval if undecided or required by the settings, else keep the champion.

    A verdict promotes only once. A version that a person rolled back or rejected on the same evidence is not promoted automatically.
    A deleted champion that this run registers again becomes champion again.
    """
    verdict, ledger = judged.verdict, Ledger(workspace.ledger)
    reconcile(workspace, store(workspace), version.name)
    entries, head = ledger.entries(version.name), ledger.head(version.name)
    done = any((entry.key, entry.verdict_key) == (version.key, verdict.key) for entry in entries)
    changed = False
    request: Request | None = None
    if (head is None or head.key != version.key) and not done:
        if (rejection := ledger.rejection(version.name, verdict.evidence, verdict.key)) is not None:
            log.warning("%s is not promoted: %s", version.uri, rejection.refusal())
        elif verdict.outcome is Outcome.PASS and _may_promote(workspace, version, entries):
            changed = _promote(workspace, version, judged)
        elif verdict.outcome is not Outcome.FAIL:
            request = _request_approval(workspace, run, version, verdict)
    head = ledger.head(version.name)
    return Result(
        model=version.name,
        version=version.number,
        outcome=verdict.outcome,
        reason=verdict.reason,
        champion=head.version if head else None,
        promoted=changed,
        up_to_date=not (run.created or judged.fresh or changed),
        page=workspace.reports / "index.html",
        run=run.run_id,
        waits_until=request.expires_at if request and request.is_open() else None,
    )


def _may_promote(workspace: Workspace, version: registry.Version, entries: Sequence[Entry]) -> bool:
    """Return whether a run may promote a version that passed: not if approval is required, or the model was rolled back."""
    current = set(registry.champion_stack(entries))
    rolled_back = {entry.key for entry in entries} - {entry.key for entry in entries if entry.version in current}
    if version.key in rolled_back:
        log.warning("%s was champion and was rolled back: it can only be promoted again manually", version.uri)
        return False
    return read_params(workspace.params).promotion.approval == "automatic"


def _promote(workspace: Workspace, version: registry.Version, judged: JudgeResult) -> bool:
    """Promote the version if the champion is still the one that the verdict compared with; return whether anything changed."""
    verdict = judged.verdict
    served = any(gate.gate == "servability" and gate.outcome is Outcome.PASS for gate in verdict.gates)
    expected = int(verdict.champion) if verdict.champion else None
    decision = registry.Decision(expected, "retune run", verdict.reason, evidence=verdict.evidence)
    answered = judged.fresh and served  # this package has answered in this run
    done = registry.promote(store(workspace), workspace.ledger, version.name, version.number, decision, verified=answered)
    return events.publish_promotion(done).changed


def _request_approval(workspace: Workspace, run: tracking.RecordedRun, version: registry.Version, verdict: Verdict) -> Request | None:
    """Request `retune approve` or `reject` for the run; return None if this evidence was approved before."""
    ledger = Ledger(workspace.ledger)
    for request in reversed(ledger.requests(version.name)):
        if (request.evidence, request.decision) == (verdict.evidence, "approved"):
            log.info("run %s was approved by %s: %s", run.run_id[:12], request.who, request.why)
            return None
    now = datetime.now(UTC)
    request = ledger.request_approval(
        Request(
            run=run.run_id,
            model=version.name,
            version=version.number,
            expected=int(verdict.champion) if verdict.champion else None,
            anchor=int(verdict.anchor) if verdict.anchor else None,
            verdict_key=verdict.key,
            outcome=verdict.outcome.value,
            evidence=verdict.evidence,
            reason=verdict.reason,
            asked_at=now,
            expires_at=now + timedelta(days=read_params(workspace.params).promotion.expires_days),
        )
    )
    reconcile(workspace, store(workspace), version.name)  # an expired request on this evidence is open again
    return request
