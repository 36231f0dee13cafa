"""The main story: from a table to a champion in the registry."""

from pathlib import Path

from components.artifacts.verdict import Verdict
from components.tracking import RecordedRun
from flows import effects
from flows.dvc import STAGES, Reproduced
from flows.engine import flow, task
from flows.workspace import Workspace, open_workspace


@flow
def retrain(params: str | None = None) -> effects.Result:
    """Bring the candidate up to date, judge it, register it, and promote it if it earned that."""
    workspace = open_workspace(Path(params) if params else None)
    check(workspace)
    snapshot(workspace)
    pin_base(workspace)
    for stage in STAGES:
        reproduce(workspace, stage)
    run = record(workspace)
    verdict = judge(workspace)
    version = register(workspace, run, verdict)
    return promote(workspace, version, verdict)


@task
def check(workspace: Workspace) -> None:
    """Check the settings, and mend what a killed run left behind."""
    effects.check(workspace)


@task
def snapshot(workspace: Workspace) -> None:
    """Take a snapshot of the data as it is now."""
    effects.take_snapshot(workspace)


@task
def pin_base(workspace: Workspace) -> None:
    """Pin the base model."""
    effects.pin_base(workspace)


@task
def reproduce(workspace: Workspace, stage: str) -> Reproduced:
    """Let DVC bring one stage up to date."""
    return effects.reproduce(workspace, stage)


@task
def record(workspace: Workspace) -> RecordedRun:
    """Put what the stages wrote into MLflow, once."""
    return effects.record(workspace)


@task
def judge(workspace: Workspace) -> Verdict:
    """Decide whether the candidate may replace the champion."""
    return effects.judge(workspace)


@task
def register(workspace: Workspace, run: RecordedRun, verdict: Verdict) -> str:
    """Register the candidate with its verdict, once, and return its version."""
    return effects.register(workspace, run, verdict)


@task
def promote(workspace: Workspace, version: str, verdict: Verdict) -> effects.Result:
    """Move the champion alias if the verdict says so, and write the page."""
    return effects.promote(workspace, version, verdict)
