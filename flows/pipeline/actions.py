"""What a run does to the world outside its folders: the snapshot, MLflow's runs and registry, the ledger.

Each effect can be repeated: it looks first whether it was done, and what it leaves half done when it is killed is mended by
the next one. The stages' results are read from the workspace; nothing here computes one.
"""

import json
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from components.artifacts.manifest import BaseManifest, SnapshotManifest
from components.artifacts.verdict import Outcome, Verdict
from components.core.documents import parse_json, read_yaml
from components.core.errors import BadData, BadInput, BadParams, NotFound, StageFailed, Unavailable
from components.core.locks import shared_database
from components.data.base_model import pin_base as pin
from components.data.snapshot import take_snapshot as take
from components.evaluation.behaviour import read_cases
from components.gates import needs
from components.ledger import Entry, Ledger, Request
from components.mlflow_store import registry, tracking
from components.mlflow_store.registry import Environment
from components.model import tasks
from flows.dvc_adapter import file_integrity, lock, repro
from flows.pipeline import evidence, historical_data
from flows.pipeline import judge as judging
from flows.pipeline.judge import JudgeResult
from flows.pipeline.lineage import commit_of, lineage_of
from flows.pipeline.pseudo_label import PseudoLabelled
from flows.pipeline.pseudo_label import pseudo_label as label_rows
from flows.production import events, promotion
from flows.project.git import uncommitted
from flows.project.params import read_params
from flows.project.stores import LOCAL, store
from flows.project.workspace import Workspace, copy_lock_files_back

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """What became of a stage, in seconds of wall clock; `live` is the MLflow run that followed its training."""

    name: str
    became: repro.StageResult
    seconds: float
    live: str | None


@dataclass(frozen=True)
class Result:
    """How a run ended: the verdict, and what became of the champion. `waits_until` is set where a person is asked; `run` names the run."""

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
    """Check all settings before any work, make the store ready, and close what a killed run left open."""
    params = read_params(workspace.params)
    commit_of(workspace)
    repro.check_pipeline(workspace.root)
    evidence.outside_digests(workspace, params)
    if params.gates.behaviour.cases and "behaviour" in needs(params.gates):
        read_cases(workspace.origin / params.gates.behaviour.cases)
    uri = store(workspace)
    closed = tracking.reconcile(uri, params.name, alone=shared_database() is not None or uri.startswith("sqlite:"))
    if closed:
        log.warning("closed %d MLflow runs of processes that are gone", closed)
    reconcile(workspace, uri, params.name)
    historical_data.check_splits(workspace, uri, params)


def reconcile(workspace: Workspace, uri: str, name: str) -> None:
    """Bring the registry to what the ledger says: the champion's aliases, and the answers to questions that wait no more."""
    for mended in promotion.bring(Environment(LOCAL, uri, workspace.ledger), name):
        log.warning("%s: %s", name, mended)


def take_snapshot(workspace: Workspace, source: str | None = None) -> SnapshotManifest:
    """Take a snapshot of the data as it is now; unchanged data leave the one that is there."""
    params = read_params(workspace.params)
    local = source is not None and source.strip() and "://" not in source
    settings = params.snapshot if source is None else params.snapshot.at(str(Path(source).resolve()) if local else source)
    required = params.made_task.columns
    repair_input(workspace, workspace.raw)
    return take(workspace.origin, workspace.raw, snapshot=settings, required=required, progress=log_rows)


def log_rows(rows: int) -> None:
    """Log how far a large source has been read."""
    if rows % 100_000 == 0:
        log.info("read %d rows", rows)


def pin_base(workspace: Workspace) -> BaseManifest:
    """Pin the base model into a folder with a hash of every file; where an alias of the registry has moved on, so does the base."""
    base = read_params(workspace.params).base
    repair_input(workspace, workspace.base)
    return pin(workspace.origin, workspace.base, base=base, registered=lambda model: find_registered(workspace, model))


def repair_input(workspace: Workspace, folder: Path) -> None:
    """Bring a snapshot or a base with damaged files back from DVC's remote; where that has no whole one, remove it: it is taken anew."""
    path = folder.relative_to(workspace.root).as_posix()
    for fetch in (True, False):
        if not (bad := file_integrity.damaged_input(workspace.root, folder)):
            return
        known = lock.pointed(workspace.root, path)
        file_integrity.drop_input(workspace.root, folder, bad, known)
        if fetch and known is not None:
            input_is_fetched(workspace.root, f"{path}.dvc")


def input_is_fetched(root: Path, *targets: str) -> None:
    """Bring from DVC's remote what was dropped from its cache, as far as it is there."""
    for target in targets:
        try:
            repro.pull(target, root)
        except (StageFailed, Unavailable) as error:
            log.info("%s is made anew: %s", target, error)


def find_registered(workspace: Workspace, model: str) -> tuple[Path, str]:
    """Return the folder of a registered model, models:/NAME@ALIAS or models:/NAME/VERSION, and its models:/NAME/VERSION."""
    return registry.model_folder(store(workspace), model)


def put_under_dvc(workspace: Workspace) -> frozenset[str]:
    """Bring snapshot and base under DVC as they stand, and return the stages that need not run: those that hang on nothing that changed."""
    changed = repro.changed(workspace.root)
    files = {folder.relative_to(workspace.root).as_posix() + ".dvc": folder for folder in (workspace.raw, workspace.base)}
    if new := [folder for file, folder in files.items() if file in changed or not (workspace.root / file).exists()]:
        repro.add_to_dvc(new, workspace.root)
    copy_lock_files_back(workspace)
    settled = lock.settled_stages(workspace.root, changed)
    damaged = damaged_stages(workspace.root, {name for stage in settled for name in lock.depends_on(workspace.root, stage)})
    if damaged:
        drop(workspace.root, damaged, fetch=True)
        names = ", ".join(damaged)
        log.warning("what was made from the damaged outputs of %s meanwhile stands: `dvc repro --force` makes it anew", names)
    return lock.settled_stages(workspace.root, {*changed, *damaged})


def reproduce(workspace: Workspace, stage: str) -> Stage:
    """Let DVC bring one stage up to date; while it trains, MLflow follows the growing history."""
    started = time.monotonic()
    with tracking.follow(workspace.history, store(workspace), read_name(workspace)) as followed:
        became = reproduce_whole(stage, workspace.root)
    copy_lock_files_back(workspace)
    log.info("%s: %s", stage, became)
    return Stage(stage, became, time.monotonic() - started, followed.run_id)


def reproduce_whole(stage: str, root: Path) -> repro.StageResult:
    """Let DVC bring a stage up to date, and take what it laid out from its cache only where that is whole.

    What is damaged is dropped, and fetched from DVC's remote or made anew.

    Raises:
        StageFailed: what is fetched or made is damaged again and again.
    """
    for attempt in range(3):
        became = repro.reproduce_stage(stage, root)
        damaged = damaged_stages(root, lock.depends_on(root, stage))
        if not damaged:
            return became
        drop(root, damaged, fetch=attempt == 0)
    raise StageFailed(f"the outputs of {', '.join(damaged)} in {root} are damaged again after they were made anew: does the disk fail?")


def damaged_stages(root: Path, stages: Collection[str]) -> dict[str, dict[str, str]]:
    """Return, of those stages that wrote files which have other bytes by now than dvc.lock says, these files and their objects."""
    return {stage: bad for stage in sorted(stages) if (bad := file_integrity.damaged_outputs(root, [stage]))}


def drop(root: Path, damaged: Mapping[str, Mapping[str, str]], fetch: bool) -> None:
    """Remove damaged outputs, and their objects from DVC's cache; with `fetch`, bring back from its remote what is whole there."""
    for bad in damaged.values():
        file_integrity.drop(root, bad)
    if fetch:
        input_is_fetched(root, *damaged)


def unchanged_stage(stage: str) -> Stage:
    """Return what became of a stage that DVC need not be asked about again."""
    log.info("%s: %s", stage, repro.StageResult.UNCHANGED)
    return Stage(stage, repro.StageResult.UNCHANGED, 0.0, None)


def record(workspace: Workspace, stages: Sequence[Stage]) -> tracking.RecordedRun:
    """Put what the stages wrote into MLflow: once a candidate, however often it is called.

    Raises:
        BadInput: the settings are not those that the model was made with.
    """
    name = read_name(workspace)
    if not stages:  # nobody has asked DVC
        repro.check_pipeline(workspace.root)
    if edited := lock.edited_params(workspace.root):
        changed = ", ".join(edited)
        raise BadInput(f"{workspace.params}: {changed} changed since the model was made: `dvc repro` or `retune run` makes it anew")
    if stale := lock.overtaken_stages(workspace.root):
        what = "; ".join(f"{stage} ran with another {', '.join(paths)}" for stage, paths in stale.items())
        raise NotFound(f"{workspace.root / 'dvc.lock'}: {what}; `dvc repro` or `retune run` makes what comes after it")
    if not stages and (moved := repro.changed(workspace.root)):
        raise NotFound(
            f"{workspace.root}: {', '.join(sorted(moved))} changed since the model was made: `dvc repro` or `retune run` makes it anew"
        )
    if not stages and (bad := file_integrity.damaged_outputs(workspace.root, lock.locked(workspace.root))):
        raise NotFound(
            f"{workspace.root}: {', '.join(bad)} is damaged, not what dvc.lock says: `retune run` brings it back or makes it anew"
        )
    lineage = lineage_of(workspace, name, tracking.run_key(workspace.root))
    params = read_yaml(workspace.params)
    live = next((stage.live for stage in stages if stage.live), None)
    changes = partial(uncommitted, workspace.project)  # a workspace is below var/, of which git keeps nothing
    return tracking.record(workspace.root, store(workspace), lineage=lineage, params=params, live=live, uncommitted=changes)


def register(workspace: Workspace, run: tracking.RecordedRun) -> registry.Version:
    """Register the candidate; the same model and data give the same version."""
    lineage = lineage_of(workspace, read_name(workspace), run.key)
    return registry.register(workspace.root, store(workspace), run_id=run.run_id, key=run.key, lineage=lineage)


def judge(workspace: Workspace, version: registry.Version, again: bool = False) -> JudgeResult:
    """Reach a verdict on the registered candidate, or return the one that stands unless it is asked for `again`."""
    return judging.judge(workspace, store(workspace), version, again)


def apply_verdict(workspace: Workspace, run: tracking.RecordedRun, version: registry.Version, judged: JudgeResult) -> Result:
    """Act on the verdict: promote who passed, ask a person where it is undecided or the settings want one, else leave the champion.

    An old verdict promotes only once, and who was rolled back from by a person comes back only by a person. What a person said no to is
    not promoted on the same evidence. A champion that was deleted, and is registered anew by this run, is champion again.
    """
    verdict, ledger = judged.verdict, Ledger(workspace.ledger)
    reconcile(workspace, store(workspace), version.name)
    entries, head, changed = ledger.entries(version.name), ledger.head(version.name), False
    done = any((entry.key, entry.verdict_key) == (version.key, verdict.key) for entry in entries)
    request: Request | None = None
    if (head is None or head.key != version.key) and not done:
        if (said := ledger.rejection(version.name, verdict.evidence, verdict.key)) is not None:
            log.warning("%s is not promoted: %s", version.uri, said.refusal())
        elif verdict.outcome is Outcome.PASS and may_promote(workspace, version, entries):
            changed = promote(workspace, version, judged)
        elif verdict.outcome is not Outcome.FAIL:
            request = ask_a_person(workspace, run, version, verdict)
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
        waits_until=request.expires_at if request is not None and request.is_open() else None,
    )


def may_promote(workspace: Workspace, version: registry.Version, entries: Sequence[Entry]) -> bool:
    """Say whether a run may promote who passed by itself: unless the settings want a person, or a person rolled back from this model."""
    standing = set(registry.current_champion(entries))
    left = {entry.key for entry in entries} - {entry.key for entry in entries if entry.version in standing}
    if version.key in left:
        log.warning("%s was champion, and a person rolled back from it: only a person makes it champion again", version.uri)
        return False
    return read_params(workspace.params).promotion.approval == "automatic"


def promote(workspace: Workspace, version: registry.Version, judged: JudgeResult) -> bool:
    """Make the version the champion if that is still who the verdict was about; say whether anything changed."""
    verdict = judged.verdict
    served = any(gate.gate == "servability" and gate.outcome is Outcome.PASS for gate in verdict.gates)
    done = registry.promote(
        store(workspace),
        workspace.ledger,
        version.name,
        version.number,
        expected=int(verdict.champion) if verdict.champion else None,
        who="retune run",
        why=verdict.reason,
        verified=judged.fresh and served,  # this very package has answered in this run
        evidence=verdict.evidence,
    )
    if done.changed:
        events.publish_promotion(done.entry)
    return done.changed


def ask_a_person(workspace: Workspace, run: tracking.RecordedRun, version: registry.Version, verdict: Verdict) -> Request | None:
    """Let the run wait for `retune approve` or `reject`; a question that was approved is not asked again."""
    ledger = Ledger(workspace.ledger)
    approved = [one for one in ledger.requests(version.name) if one.evidence == verdict.evidence and one.decision == "approved"]
    if approved:
        log.info("run %s was approved by %s: %s", run.run_id[:12], approved[-1].who, approved[-1].why)
        return None
    now = datetime.now(UTC)
    asked = ledger.request_approval(
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
    reconcile(workspace, store(workspace), version.name)  # an earlier question on this evidence may have expired: it waits again
    return asked


def predict(workspace: Workspace, model: str, asked: Sequence[str]) -> list[dict[str, Any]]:
    """Ask a version or an alias, by the code it was packaged with.

    Each of `asked` is a text, or a JSON object with all inputs where the task has several.
    """
    name = read_name(workspace)
    if not registry.versions(store(workspace), name):
        raise NotFound(f"{name} has no version yet; `retune run` registers one")
    uri, version = store(workspace), f"{name}/{model}" if model.isdigit() else f"{name}@{model}"
    rows = as_rows(tasks.of(registry.spec_of(uri, version)).inputs, asked)  # its own inputs, whatever the task is today
    answers = registry.predict(uri, version, rows)
    return [{str(key): value for key, value in row.items()} for row in answers.to_dict(orient="records")]


def pseudo_label(workspace: Workspace, unlabelled: Path, out: Path, model: str, floor: float) -> PseudoLabelled:
    """Label the rows where a registered version is confident; see `flows.pipeline.pseudo_label`. Without `model`: the champion."""
    return label_rows(workspace, store(workspace), unlabelled, out, model or read_name(workspace), floor)


def as_rows(inputs: Sequence[str], asked: Sequence[str]) -> pd.DataFrame:
    """Return what is asked as a table with the columns `inputs`.

    Raises:
        BadData: there are several inputs, and something is no JSON object with just those.
    """
    if len(inputs) == 1:
        return pd.DataFrame({inputs[0]: pd.Series(list(asked), dtype="str")})
    rows = []
    for number, text in enumerate(asked, 1):
        try:
            row = parse_json(text, f"question {number}")
        except BadParams:
            row = None
        if not isinstance(row, dict) or set(row) != set(inputs):
            wanted = ", ".join(f'"{name}": …' for name in inputs)
            raise BadData(f"question {number}: expected a JSON object {{{wanted}}}, with each key once, found {text[:80]!r}")
        rows.append({name: cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False) for name, cell in row.items()})
    return pd.DataFrame(rows, columns=list(inputs), dtype="str")


def status(workspace: Workspace) -> dict[str, Any]:
    """Return the champion and all versions, ready for JSON."""
    name, uri = read_name(workspace), store(workspace)
    known = [
        {"version": v.number, "aliases": list(v.aliases), "verdict": v.tags.get("retune.verdict"), "run_key": v.key}
        for v in registry.versions(uri, name)
    ]
    return {**asdict(registry.status(uri, name)), "versions": known}


def read_name(workspace: Workspace) -> str:
    """Return the model's name."""
    return read_params(workspace.params).name
