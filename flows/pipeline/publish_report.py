"""What people read of a run: the page, the model card, and the verdict as Prefect shows it."""

import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from components import report
from components.artifacts.lineage import Lineage
from components.artifacts.predictions import Predictions
from components.artifacts.verdict import Verdict
from components.core.documents import read_yaml
from components.core.errors import BadModel, NotFound
from components.core.markdown import cell
from components.evaluation.metric_set import metric_set
from components.mlflow_store import registry, tracking
from components.mlflow_store.registry import artifact_access
from flows.dvc_adapter import repro
from flows.pipeline.actions import Result, Stage
from flows.pipeline.evidence import test_rows
from flows.pipeline.judge import JudgeResult
from flows.pipeline.lineage import lineage_of
from flows.pipeline.model_sessions import ModelSessions
from flows.project.params import read_params
from flows.project.stores import store
from flows.project.workspace import Workspace

log = logging.getLogger(__name__)

VERDICT = "verdict.md"  # beside the page: what Prefect's page and a notification show


def publish(workspace: Workspace, run: tracking.RecordedRun, stages: Sequence[Stage], judged: JudgeResult, result: Result) -> Path:
    """Write the page, unless it shows this verdict already, and put it beside the run in MLflow."""
    if not report.shows(result.page, judged.verdict, str(result.version)):
        write_page(workspace, run, stages, judged, result)
    (workspace.reports / VERDICT).write_text(in_markdown(judged, result), encoding="utf-8")
    cards = {workspace.reports / name: "card" for name in (report.CARD, report.CARD_PAGE)}
    tracking.attach(store(workspace), run.run_id, {result.page: "report", **cards})
    return result.page


def write_page(workspace: Workspace, run: tracking.RecordedRun, stages: Sequence[Stage], judged: JudgeResult, result: Result) -> None:
    """Write the page on the candidate and its verdict, and the model card."""
    known: dict[str, Any] = {
        "lineage": lineage_of(workspace, result.model, run.key),
        "verdict": judged.verdict,
        "version": str(result.version),
        "champion": describe_reference(workspace, result.model, judged.verdict),
        "made_at": datetime.now(UTC),
    }
    seconds = {stage.name: stage.seconds for stage in stages if stage.result is repro.StageResult.RAN}
    params = read_yaml(workspace.params)  # as they are recorded with a run
    report.write_card(workspace.root, workspace.reports, **known)
    report.write_report(workspace.root, result.page, seconds=seconds, params=params, **known)  # last: it says that both are there


def describe_reference(workspace: Workspace, name: str, verdict: Verdict) -> report.ChampionFacts | None:
    """Return what the page shows of the version that the candidate was judged against; None where it cannot be had any more."""
    if verdict.champion is None:
        return None
    uri = store(workspace)
    opponent = next((v for v in registry.versions(uri, name) if str(v.number) == verdict.champion), None)
    if opponent is None:
        log.warning("version %s was deleted since the verdict: the page shows the verdict without it", verdict.champion)
        return None
    params = read_params(workspace.params)
    try:
        with ModelSessions(workspace, uri, params.made_task, params.validation.label_map) as asked:
            scored = asked.predictions(opponent, test_rows(workspace), verdict.test_digest)
    except BadModel as error:
        log.warning("the page shows the verdict without version %s: %s", verdict.champion, error)
        return None
    candidate = Predictions.read(workspace.predictions / "candidate.parquet")
    fresh = ~np.isin(candidate.ids, verdict.left_out)
    if not fresh.any():
        log.warning(
            "the page shows the verdict without version %s: each test row is one that a compared model has learnt", verdict.champion
        )
        return None
    candidate, scored = candidate.take(fresh), scored.take(fresh)
    measured = metric_set(params.made_task, candidate, params.evaluate.min_class_units)
    origin = {"settings": recorded(uri, opponent, "training/training.json").get("settings", {})}
    origin["params"] = recorded(uri, opponent, "params.json")
    origin["lineage"] = Lineage.model_validate(trail) if (trail := recorded(uri, opponent, "lineage.json")) else None
    return report.ChampionFacts.of(verdict.champion, scored, candidate, measured, opponent.tags.get("retune.data_digest"), **origin)


def recorded(uri: str, version: registry.Version, path: str) -> dict[str, Any]:
    """Return what a version's run recorded in a JSON file; nothing where that is gone."""
    try:
        found: dict[str, Any] = json.loads(artifact_access.artifact(uri, version, path).read_text(encoding="utf-8"))
    except (NotFound, ValueError) as error:
        log.warning("the page shows the champion without its %s: %s", path, error)
        return {}
    return found


def in_markdown(judged: JudgeResult, result: Result) -> str:
    """Return the verdict as the text of an artifact in Prefect."""
    rows = "\n".join(f"| {cell(gate.gate)} | {gate.role} | {gate.shown} | {cell(gate.reason)} |" for gate in judged.verdict.gates)
    champion = f"the champion is version {result.champion}" if result.champion else "there is no champion yet"
    head = f"# {result.outcome}: {cell(result.model)} version {result.version}\n\n{cell(result.reason)}; {champion}.\n"
    page = f"The page: {cell(result.page)}"
    return f"{head}{waiting(result)}\n| gate | role | outcome | reason |\n|---|---|---|---|\n{rows}\n\n{page}\n"


def waiting(result: Result) -> str:
    """Say how a person answers, where one is asked."""
    if result.waits_until is None:
        return ""
    until = result.waits_until.strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"\nIt waits for a person until {until}: `retune approve {result.run[:12]} --why …` or `retune reject {result.run[:12]} --why …`.\n"
    )
