"""The retraining flow: from labelled data to a verdict and a champion in the registry."""

from datetime import UTC, datetime
from pathlib import Path

from components.steps import STAGES
from flows.orchestrator.prefect_adapter import flow, label_run, task
from flows.pipeline import actions, publish_report
from flows.pipeline import judge as judging
from flows.pipeline.actions import Result
from flows.project.params import read_params
from flows.project.workspace import Workspace, open_workspace

check = task(actions.check)
snapshot = task(actions.snapshot)
pin_base = task(actions.pin_base)
put_under_dvc = task(actions.put_under_dvc)
reproduce = task(actions.reproduce, "{stage}")
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
    name = read_params(workspace.params).name
    label_run(f"model {name}", name=f"{name} {datetime.now(UTC):%Y-%m-%d %H:%M}")
    snapshot(workspace)
    pin_base(workspace)
    unchanged = put_under_dvc(workspace)
    stages = [actions.unchanged_stage(stage) for stage in STAGES if stage in unchanged]
    stages += [reproduce(workspace, stage) for stage in STAGES if stage not in unchanged]
    run = record(workspace, stages)
    version = register(workspace, run)
    judged = judge(workspace, version)
    result = apply_verdict(workspace, run, version, judged)
    label_run(f"verdict {result.outcome}")
    publish(workspace, run, stages, judged, result)
    return result
