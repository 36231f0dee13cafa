"""The main story: from a table to a champion in the registry."""

from collections.abc import Sequence
from pathlib import Path

from components.mlflow_store.registry import Version
from components.mlflow_store.tracking import RecordedRun
from components.steps import STAGES
from flows.orchestrator.prefect_adapter import flow, log_to_prefect, task
from flows.pipeline import actions, publish_report
from flows.pipeline.actions import Result, Stage
from flows.pipeline.judge import JudgeResult
from flows.project.workspace import Workspace, open_workspace


@flow
def retrain(params: str) -> Result:
    """Bring the candidate up to date, register it, judge it, and promote it if it earned that."""
    return run_pipeline(open_workspace(Path(params)))


def run_pipeline(workspace: Workspace) -> Result:
    """Tell the story of one model, in a workspace that is this run's alone."""
    check(workspace)
    snapshot(workspace)
    pin_base(workspace)
    settled = put_under_dvc(workspace)
    stages = [actions.unchanged_stage(stage) for stage in STAGES if stage in settled]  # the first ones: nothing of theirs has changed
    stages += [reproduce(workspace, stage) for stage in STAGES if stage not in settled]
    run = record(workspace, stages)
    version = register(workspace, run)
    judged = judge(workspace, version)
    result = settle(workspace, run, version, judged)
    publish(workspace, run, stages, judged, result)
    return result


@task
def check(workspace: Workspace) -> None:
    """Check the settings, and mend what a killed run left behind."""
    actions.check(workspace)


@task
def snapshot(workspace: Workspace) -> None:
    """Take a snapshot of the data as it is now."""
    actions.take_snapshot(workspace)


@task
def pin_base(workspace: Workspace) -> None:
    """Pin the base model."""
    actions.pin_base(workspace)


@task
def put_under_dvc(workspace: Workspace) -> frozenset[str]:
    """Bring data and base model under DVC, and ask it once which stages stand as they are."""
    return actions.put_under_dvc(workspace)


@task
def reproduce(workspace: Workspace, stage: str) -> Stage:
    """Let DVC bring one stage up to date."""
    return actions.reproduce(workspace, stage)


@task
def record(workspace: Workspace, stages: Sequence[Stage]) -> RecordedRun:
    """Put what the stages wrote into MLflow, once."""
    return actions.record(workspace, stages)


@task
def register(workspace: Workspace, run: RecordedRun) -> Version:
    """Register the candidate, once: what is judged is what would go into production."""
    return actions.register(workspace, run)


@task
def judge(workspace: Workspace, version: Version) -> JudgeResult:
    """Decide whether the candidate may replace the champion."""
    return actions.judge(workspace, version)


@task
def settle(workspace: Workspace, run: RecordedRun, version: Version, judged: JudgeResult) -> Result:
    """Do what the verdict says: promote, wait for a person, or keep the champion."""
    return actions.apply_verdict(workspace, run, version, judged)


@task
def publish(workspace: Workspace, run: RecordedRun, stages: Sequence[Stage], judged: JudgeResult, result: Result) -> None:
    """Write the page, and tell Prefect's users the verdict."""
    publish_report.publish(workspace, run, stages, judged, result)
    log_to_prefect((workspace.reports / publish_report.VERDICT).read_text(encoding="utf-8"), key=f"verdict-{result.model}")
