"""Publish the results of a run: the report page, the model card, and the verdict for Prefect."""

import logging
import re
from collections.abc import Sequence
from datetime import UTC, datetime
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
from flows.orchestrator.prefect_adapter import log_to_prefect
from flows.pipeline.actions import Result, Stage
from flows.pipeline.evidence import test_rows
from flows.pipeline.judge import JudgeResult
from flows.pipeline.lineage import lineage_of
from flows.pipeline.model_sessions import ModelSessions
from flows.project.params import read_params
from flows.project.stores import store
from flows.project.workspace import Workspace
from flows.settings import read_settings

log = logging.getLogger(__name__)

VERDICT = "verdict.md"  # next to the report: shown in Prefect and in notifications


def publish(workspace: Workspace, run: tracking.RecordedRun, stages: Sequence[Stage], judged: JudgeResult, result: Result) -> None:
    """Write the report, or what became of a verdict that it already shows; attach it to the run, and show the verdict in Prefect."""
    if not report.update_standing(result.page, result.model, judged.verdict, str(result.version), standing_of(result)):
        write_page(workspace, run, stages, judged, result)
    markdown = in_markdown(judged, result)
    (workspace.reports / VERDICT).write_text(markdown, encoding="utf-8")
    cards = {workspace.reports / name: "card" for name in (report.CARD, report.CARD_PAGE)}
    tracking.attach_files(store(workspace), run.run_id, {result.page: "report", **cards})
    log_to_prefect(markdown, key=f"verdict-{result.model}")


def write_page(workspace: Workspace, run: tracking.RecordedRun, stages: Sequence[Stage], judged: JudgeResult, result: Result) -> None:
    """Write the report on the candidate and its verdict, and the model card."""
    params = read_params(workspace.params)
    facts = report.Run(
        lineage_of(workspace, result.model, run.key),
        judged.verdict,
        str(result.version),
        describe_reference(workspace, result.model, judged.verdict),
        standing=standing_of(result),
        example=params.made_task.example,
        **({"tracking_uri": re.sub(r"//[^/@]*@", "//", uri)} if (uri := read_settings(workspace.project).mlflow_uri) else {}),
        seconds={stage.name: stage.seconds for stage in stages if stage.result is repro.StageResult.RAN},
        made_at=datetime.now(UTC),
        params=read_yaml(workspace.params),  # as recorded with the run
    )
    report.write_card(workspace.root, workspace.reports, facts)
    report.write_report(workspace.root, result.page, facts)  # last: it links to the card


def standing_of(result: Result) -> report.Standing:
    """Return what became of the verdict of a run."""
    return report.Standing(str(result.champion) if result.champion else None, result.run[:12], result.waits_until)


def next_step(result: Result) -> str:
    """Return the commands that fit the result of a run."""
    return report.next_step(result.model, str(result.version), result.outcome, standing_of(result))


def describe_reference(workspace: Workspace, name: str, verdict: Verdict) -> report.ChampionFacts | None:
    """Return what the report shows of the champion in the verdict; None if it is no longer available."""
    if verdict.champion is None:
        return None
    uri = store(workspace)
    champion = next((v for v in registry.versions(uri, name) if str(v.number) == verdict.champion), None)
    if champion is None:
        log.warning("the report shows the verdict without version %s, which was deleted since", verdict.champion)
        return None
    params = read_params(workspace.params)
    try:
        with ModelSessions(workspace, uri, params.made_task, params.validation.label_map) as sessions:
            predicted = sessions.predictions(champion, test_rows(workspace), verdict.test_digest)
    except BadModel as error:
        log.warning("the report shows the verdict without version %s: %s", verdict.champion, error)
        return None
    candidate = Predictions.read(workspace.predictions / "candidate.parquet")
    fresh = ~np.isin(candidate.ids, verdict.left_out)
    if not fresh.any():
        log.warning("the report shows the verdict without version %s: a model was trained on every test row", verdict.champion)
        return None
    candidate, predicted = candidate.take(fresh), predicted.take(fresh)
    measured = metric_set(params.made_task, candidate, params.evaluate.min_class_units)
    origin = {"settings": recorded(uri, champion, "training/training.json").get("settings", {})}
    origin["params"] = recorded(uri, champion, "params.json")
    origin["lineage"] = Lineage.model_validate(trail) if (trail := recorded(uri, champion, "lineage.json")) else None
    return report.ChampionFacts.from_predictions(
        verdict.champion, predicted, candidate, measured, champion.tags.get("retune.data_digest"), **origin
    )


def recorded(uri: str, version: registry.Version, path: str) -> dict[str, Any]:
    """Return the content of a JSON artifact of a version's run; empty if it is missing."""
    try:
        return artifact_access.read_json(uri, version, path)
    except (NotFound, ValueError) as error:
        log.warning("the report shows the champion without %s: %s", path, error)
        return {}


def in_markdown(judged: JudgeResult, result: Result) -> str:
    """Return the verdict as Markdown, for an artifact in Prefect."""
    rows = "\n".join(f"| {cell(gate.gate)} | {gate.role} | {gate.outcome} | {cell(gate.reason)} |" for gate in judged.verdict.gates)
    champion = f"the champion is version {result.champion}" if result.champion else "there is no champion yet"
    reason = cell(result.reason).rstrip(".")
    head = f"# {result.outcome}: {cell(result.model)} version {result.version}\n\n{reason}; {champion}.\n"
    page = f"Report: {cell(result.page)}"
    following = f"\nNext: {next_step(result).replace('<', '‹')}.\n"  # nothing can be escaped in code
    return f"{head}{following}\n| gate | role | outcome | reason |\n|---|---|---|---|\n{rows}\n\n{page}\n"
