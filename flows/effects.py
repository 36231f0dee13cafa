"""What a run does to the world outside its folders: the snapshot, MLflow's runs and registry, the page.

Each effect can be repeated: it looks first whether it was done, and what it leaves half done when it is killed is mended by
the next one. The stages' results are read from the workspace; nothing here computes one.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from components import registry, report, tasks, tracking
from components.artifacts.manifest import BaseManifest, Manifest
from components.artifacts.metrics import Metrics
from components.artifacts.predictions import Predictions
from components.artifacts.rows import read_rows
from components.artifacts.verdict import Outcome, Verdict
from components.base import pin_base as pin
from components.errors import BadInput, NotThere
from components.gates import judge as fold
from components.gates import verdict_key
from components.snapshot import take_snapshot as take
from flows import dvc
from flows.lineage import lineage_of
from flows.params import read_params
from flows.workspace import Workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """What became of a stage, in seconds of wall clock; `live` is the MLflow run that followed its training."""

    name: str
    became: dvc.Reproduced
    seconds: float
    live: str | None


@dataclass(frozen=True)
class Judged:
    """A verdict; `fresh` is false when an earlier run had reached it."""

    verdict: Verdict
    fresh: bool


@dataclass(frozen=True)
class Result:
    """How a run ended: the verdict, and what became of the champion."""

    model: str
    version: int
    outcome: Outcome
    reason: str
    champion: int | None
    promoted: bool
    up_to_date: bool
    page: Path


def check(workspace: Workspace) -> None:
    """Check all settings before any work, make the store ready, and close what a killed run left open."""
    params = read_params(workspace.params)
    closed = tracking.reconcile(tracking.prepare_store(workspace.var), params.name)
    if closed:
        log.warning("closed %d MLflow runs of processes that are gone", closed)


def take_snapshot(workspace: Workspace, source: str | None = None) -> Manifest:
    """Take a snapshot of the data as it is now; unchanged data leave the one that is there."""
    params = read_params(workspace.params)
    settings = params.snapshot if source is None else params.snapshot.model_copy(update={"source": str(Path(source).resolve())})
    required = tasks.load(params.task).COLUMNS
    manifest = take(workspace.origin, workspace.raw, snapshot=settings, required=required, progress=tell_rows)
    put_under_dvc(workspace.raw, workspace)
    return manifest


def tell_rows(rows: int) -> None:
    """Log how far a large source has been read."""
    if rows % 100_000 == 0:
        log.info("read %d rows", rows)


def pin_base(workspace: Workspace) -> BaseManifest:
    """Pin the base model into a folder with a hash of every file."""
    manifest = pin(workspace.origin, workspace.base, base=read_params(workspace.params).base)
    put_under_dvc(workspace.base, workspace)
    return manifest


def put_under_dvc(folder: Path, workspace: Workspace) -> None:
    """Run `dvc add` unless DVC has the folder as it stands."""
    if not dvc.is_added(folder, workspace.root):
        dvc.add(folder, workspace.root)


def reproduce(workspace: Workspace, stage: str) -> Stage:
    """Let DVC bring one stage up to date; while it trains, MLflow follows the growing history."""
    started = time.monotonic()
    with tracking.follow(workspace.history, store(workspace), read_name(workspace)) as followed:
        became = dvc.reproduce_stage(stage, workspace.root)
    log.info("%s: %s", stage, became)
    return Stage(stage, became, time.monotonic() - started, followed.run_id)


def record(workspace: Workspace, stages: Sequence[Stage]) -> tracking.RecordedRun:
    """Put what the stages wrote into MLflow: once a candidate, however often it is called."""
    name = read_name(workspace)
    lineage = lineage_of(workspace, name, tracking.run_key(workspace.root))
    params = yaml.safe_load(workspace.params.read_text(encoding="utf-8"))
    live = next((stage.live for stage in stages if stage.live), None)
    return tracking.record(workspace.root, store(workspace), lineage=lineage, params=params, live=live)


def judge(workspace: Workspace) -> Judged:
    """Reach a verdict on the candidate, or return the one that was reached under the same gates against the same champion."""
    params, uri = read_params(workspace.params), store(workspace)
    key, test = tracking.run_key(workspace.root), Metrics.read(workspace.reports / "evaluation").test_digest
    known = registry.versions(uri, params.name)
    opponent = find_opponent(known, key)
    against, label = (None, None) if opponent is None else (opponent.key, str(opponent.number))
    expected = verdict_key(key, against, test, params.gates, params.evaluate.min_class_units)
    earlier = [read_verdict(workspace.reports), *(version.verdict for version in known if version.key == key)]
    standing = next((verdict for verdict in earlier if verdict is not None and verdict.key == expected), None)
    if standing is not None:
        log.info("the verdict stands: %s", standing.outcome)
        standing = standing.model_copy(update={"champion": label})  # the same model may have another number in another registry
        standing.write(workspace.reports)
        return Judged(standing, fresh=False)
    verdict = fold(
        Predictions.read(workspace.predictions / "candidate.parquet"),
        {path.stem: Predictions.read(path) for path in sorted(workspace.predictions.glob("*.parquet")) if path.stem != "candidate"},
        None if opponent is None else score_opponent(workspace, opponent, test),
        champion_version=label,
        champion_key=against,
        candidate_digest=key,
        test_digest=test,
        gates=params.gates,
        min_class_units=params.evaluate.min_class_units,
    )
    for gate in verdict.gates:
        log.info("gate %s: %s, %s", gate.gate, gate.outcome, gate.reason)
    verdict.write(workspace.reports)
    return Judged(verdict, fresh=True)


def read_verdict(reports: Path) -> Verdict | None:
    """Return the verdict that lies in the workspace."""
    try:
        return Verdict.read(reports)
    except NotThere:
        return None


def find_opponent(known: Sequence[registry.Version], key: str) -> registry.Version | None:
    """Return the champion; where that is the candidate itself, the version whose place it took."""
    champion = next((version for version in known if registry.CHAMPION in version.aliases), None)
    if champion is None or champion.key != key:
        return champion
    return next((version for version in known if version.number == champion.judged_against), None)


def score_opponent(workspace: Workspace, opponent: registry.Version, test_digest: str) -> Predictions:
    """Score a registered version on today's test rows in a fresh process, by the code it was packaged with; kept by content."""
    cache = workspace.var / "predictions" / opponent.name / f"{opponent.key[:32]}-{test_digest[:32]}.parquet"
    rows = read_rows(workspace.root / "data/prepared/test/test.parquet")
    return registry.score_version(store(workspace), opponent.name, opponent.number, rows, cache)


def register(workspace: Workspace, run: tracking.RecordedRun, judged: Judged) -> registry.Version:
    """Register the candidate with its verdict; the same model and data give the same version."""
    lineage = lineage_of(workspace, read_name(workspace), run.key)
    return registry.register(workspace.root, store(workspace), run_id=run.run_id, key=run.key, lineage=lineage, verdict=judged.verdict)


def promote(workspace: Workspace, run: tracking.RecordedRun, version: registry.Version, judged: Judged) -> Result:
    """Make the version the champion if it passed every gate.

    An old verdict promotes only once: who was rolled back by a person stays so until there is something new to judge.
    """
    changed = False
    if judged.verdict.outcome is Outcome.PASS and (judged.fresh or not version.promoted):
        expected = int(judged.verdict.champion) if judged.verdict.champion else None
        changed = registry.promote(store(workspace), version.name, version.number, expected).changed
    champion = registry.champion(store(workspace), version.name)
    return Result(
        model=version.name,
        version=version.number,
        outcome=judged.verdict.outcome,
        reason=judged.verdict.reason,
        champion=champion.number if champion else None,
        promoted=changed,
        up_to_date=not (run.created or judged.fresh or changed),
        page=workspace.reports / "index.html",
    )


def publish(workspace: Workspace, run: tracking.RecordedRun, stages: Sequence[Stage], judged: Judged, result: Result) -> Path:
    """Write the page, unless it shows this verdict already, and put it beside the run in MLflow."""
    if not report.shows(result.page, judged.verdict, str(result.version)):
        write_page(workspace, run, stages, judged, result)
    tracking.attach(store(workspace), run.run_id, result.page, into="report")
    return result.page


def write_page(workspace: Workspace, run: tracking.RecordedRun, stages: Sequence[Stage], judged: Judged, result: Result) -> None:
    """Write the page on the candidate and its verdict."""
    lineage = lineage_of(workspace, result.model, run.key)
    seconds = {stage.name: stage.seconds for stage in stages if stage.became is dvc.Reproduced.RAN}
    report.write_report(
        workspace.root,
        result.page,
        lineage=lineage,
        verdict=judged.verdict,
        version=str(result.version),
        champion=describe_opponent(workspace, result.model, judged.verdict),
        seconds=seconds,
        made_at=datetime.now(UTC),
    )


def describe_opponent(workspace: Workspace, name: str, verdict: Verdict) -> report.Champion | None:
    """Return what the page shows of the version that the candidate was judged against."""
    if verdict.champion is None:
        return None
    opponent = next((v for v in registry.versions(store(workspace), name) if str(v.number) == verdict.champion), None)
    if opponent is None:
        log.warning("version %s was deleted since the verdict: the page shows the verdict without it", verdict.champion)
        return None
    scored = score_opponent(workspace, opponent, verdict.test_digest)
    candidate = Predictions.read(workspace.predictions / "candidate.parquet")
    units = read_params(workspace.params).evaluate.min_class_units
    return report.Champion.of(verdict.champion, scored, candidate, units, opponent.tags.get("retune.data_digest"))


def in_markdown(judged: Judged, result: Result) -> str:
    """Return the verdict as the text of an artifact in Prefect."""
    rows = "\n".join(f"| {gate.gate} | {gate.outcome} | {gate.reason.replace('|', '/')} |" for gate in judged.verdict.gates)
    champion = f"the champion is version {result.champion}" if result.champion else "there is no champion yet"
    head = f"# {result.outcome}: {result.model} version {result.version}\n\n{result.reason}; {champion}.\n"
    return f"{head}\n| gate | outcome | reason |\n|---|---|---|\n{rows}\n\nThe page: `{result.page}`\n"


def promote_version(workspace: Workspace, number: int | None, *, force: bool) -> registry.Promotion:
    """Make a version the champion on request.

    Raises:
        BadInput: its verdict is not PASS, and `force` is not set.
        NotThere: there is no such version.
    """
    name, uri = read_name(workspace), store(workspace)
    known = registry.versions(uri, name)
    if not known:
        raise NotThere(f"{name} has no version yet; `retune run` registers one")
    chosen = known[-1] if number is None else next((v for v in known if v.number == number), None)
    if chosen is None:
        raise NotThere(f"{name} has no version {number}; there are {', '.join(str(v.number) for v in known)}")
    verdict = chosen.tags.get("retune.verdict", "missing")
    if verdict != Outcome.PASS and not force:
        raise BadInput(f"the verdict on {name} version {chosen.number} is {verdict}; read {workspace.reports / 'index.html'}, or --force")
    return registry.promote(uri, name, chosen.number)


def predict(workspace: Workspace, model: str, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Ask a version or an alias, by the code it was packaged with."""
    name = read_name(workspace)
    if not registry.versions(store(workspace), name):
        raise NotThere(f"{name} has no version yet; `retune run` registers one")
    answers = registry.predict(store(workspace), f"{name}/{model}" if model.isdigit() else f"{name}@{model}", texts)
    return [{str(key): value for key, value in row.items()} for row in answers.to_dict(orient="records")]


def status(workspace: Workspace) -> dict[str, Any]:
    """Return the champion and all versions, ready for JSON."""
    name, uri = read_name(workspace), store(workspace)
    known = [
        {"version": v.number, "aliases": list(v.aliases), "verdict": v.tags.get("retune.verdict"), "run_key": v.key}
        for v in registry.versions(uri, name)
    ]
    return {**asdict(registry.status(uri, name)), "versions": known}


def store(workspace: Workspace) -> str:
    """Return the address of MLflow's store, ready to be used."""
    return tracking.prepare_store(workspace.var)


def read_name(workspace: Workspace) -> str:
    """Return the model's name."""
    return read_params(workspace.params).name
