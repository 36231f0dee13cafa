"""The retraining flow: from labelled data to a verdict and a champion in the registry."""

from pathlib import Path

from components.steps import STAGES
from flows.orchestrator.prefect_adapter import flow, task
from flows.pipeline import actions, publish_report
from flows.pipeline import judge as judging
from flows.pipeline.actions import Result
from flows.project.workspace import Workspace, open_workspace

check = task(actions.check)
snapshot = task(actions.snapshot)
pin_base = task(actions.pin_base)
put_under_dvc = task(actions.put_under_dvc)
reproduce = task(actions.reproduce)
record = task(actions.record)
register = task(actions.register)
judge = task(judging.judge)
apply_verdict = task(actions.apply_verdict)
publish = task(publish_report.publish)


@flow
def retrain(params: str) -> Result:
    """Build the candidate, register and judge it, and promote it if it passes."""
    return run_pipeline(open_workspace(Path(params)))


def run_pipeline(workspace: Workspace) -> Result:
    """Run the pipeline for one model; the caller holds the locks of the workspace and the model."""
    check(workspace)
    snapshot(workspace)
    pin_base(workspace)
    unchanged = put_under_dvc(workspace)
    stages = [actions.unchanged_stage(stage) for stage in STAGES if stage in unchanged]
    stages += [reproduce(workspace, stage) for stage in STAGES if stage not in unchanged]
    run = record(workspace, stages)
    version = register(workspace, run)
    judged = judge(workspace, version)
    result = apply_verdict(workspace, run, version, judged)
    publish(workspace, run, stages, judged, result)
    return result
