"""Scheduled retraining on the shared stack: four models, two workers, and a worker that is killed during a training."""

import json
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from components.data.snapshot import take_snapshot
from components.ledger import Ledger
from flows.project.models import find_models
from flows.project.params import read_params
from infra.local.layout import USER, Stack
from infra.local.services import started_by
from tests.support.project import git, retune, wait_for
from tests.support.stack_services import (
    MODELS,
    Migration,
    commit,
    connect,
    is_training,
    kill_with_worker,
    local,
    process_of,
    read_logs,
    read_run,
    start_run,
    wait_for_runs,
)

VICTIM = "m3"


@pytest.fixture(scope="module")
def retrained(stack: Stack, project: Path, migrated: Migration) -> dict[str, str]:
    """The final state of a scheduled run of each model, started at once; one worker was killed while it trained m3."""
    params = yaml.safe_load((project / "models" / VICTIM / "params.yaml").read_text(encoding="utf-8"))
    params["train"] |= {"epochs": 200, "patience": 0}
    (project / "models" / VICTIM / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    commit(project)
    deployed = retune(project, "deploy")
    assert deployed.returncode == 0, deployed.stderr
    names = [name.partition("/")[2] for name in deployed.stdout.split()]
    assert len(names) == MODELS
    first, *rest = [VICTIM, *(name for name in names if name != VICTIM)]
    killed = start_run(stack, first)
    runs = {name: start_run(stack, name) for name in rest}
    wait_for(lambda: is_training(killed) and is_tracked(stack), 300, every=0.2)
    kill_with_worker(killed)
    wait_for(lambda: process_of(killed) is None)
    wait_for_runs(stack, *runs.values())
    assert read_run(stack, killed)["state_type"] == "CRASHED"  # set by the next run; its slot is free
    runs[first] = start_run(stack, first)
    wait_for_runs(stack, runs[first])
    return {name: f"{read_run(stack, run)['state_type']}: {read_run(stack, run)['state']['message']}" for name, run in runs.items()}


@pytest.fixture(scope="module")
def fresh_clone(retrained: dict[str, str], stack: Stack, project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone on another machine: settings, but neither cache nor registry."""
    clone = tmp_path_factory.mktemp("elsewhere") / "clone"
    git(clone.parent, "clone", "--quiet", str(project), str(clone))
    connect(stack, clone)
    return clone


def is_tracked(stack: Stack) -> bool:
    """Return whether MLflow lists the running training of the model m3."""
    account = (USER, stack.secrets["MLFLOW_ADMIN_PASSWORD"])
    response = httpx.get(f"{stack.mlflow}/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": VICTIM}, auth=account)
    if not response.is_success:
        return False
    query = {"experiment_ids": [response.json()["experiment"]["experiment_id"]], "filter": "attributes.status = 'RUNNING'"}
    return bool(httpx.post(f"{stack.mlflow}/api/2.0/mlflow/runs/search", json=query, auth=account).json().get("runs"))


def test_two_workers_retrain_four_models_concurrently(retrained: dict[str, str]) -> None:
    assert len(retrained) == MODELS
    for name, ended in retrained.items():
        assert ended.startswith("COMPLETED: PASS"), f"{name}: {ended}"


def test_registry_entries_have_their_own_model_and_data(
    retrained: dict[str, str], stack: Stack, project: Path, tmp_path: Path, settings_of_stack: None
) -> None:
    from components.mlflow_store import registry

    tags = {}
    for model in find_models(project):
        params = read_params(model.params)
        source = take_snapshot(model.params.parent, tmp_path / model.name, snapshot=params.snapshot, required=params.made_task.columns)
        (version,) = registry.versions(stack.mlflow, model.name)
        assert "champion" in version.aliases
        assert version.tags["retune.data_digest"] == source.digest
        package = registry.checked_package(stack.mlflow, version) / "artifacts"  # checks the hash of every file
        assert yaml.safe_load((package / "params.yaml").read_text(encoding="utf-8")) == yaml.safe_load(
            model.params.read_text(encoding="utf-8")
        )
        assert [entry.version for entry in Ledger(stack.database("retune")).entries(model.name)] == [1]
        tags[model.name] = version.tags
    assert len(tags) == MODELS
    for unique in ("retune.data_digest", "retune.weights", "retune.package", "retune.flow_run", "retune.key"):
        assert len({of_model.get(unique) for of_model in tags.values()}) == MODELS, unique


def test_open_runs_of_a_killed_worker_are_closed(retrained: dict[str, str], stack: Stack, project: Path, settings_of_stack: None) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(stack.mlflow)
    experiment = client.get_experiment_by_name(VICTIM)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=500)
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED", "FAILED"}
    assert any(run.info.status in ("KILLED", "FAILED") for run in runs)
    git(project, "worktree", "prune")
    assert len(git(project, "worktree", "list").splitlines()) == 1


def test_unchanged_model_is_skipped(retrained: dict[str, str], stack: Stack) -> None:
    (message,) = wait_for_runs(stack, start_run(stack, "m1"))

    assert message.startswith("skipped: no new data"), message


def test_fresh_clone_skips_a_model_without_new_data(fresh_clone: Path) -> None:
    done = retune(fresh_clone, "retrain", "--inline", "m2")

    assert done.returncode == 0, done.stderr
    assert "skipped  m2: no new data" in done.stdout


def test_version_is_rebuilt_bit_for_bit_in_a_fresh_clone(fresh_clone: Path) -> None:
    done = retune(fresh_clone, "rebuild", "m1", "1", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bit_equal"] is True


def test_killed_services_are_restarted(retrained: dict[str, str], stack: Stack, project: Path) -> None:
    before = json.loads((stack.folder / "state.json").read_text(encoding="utf-8"))["services"]
    for name in ("postgres", "s3", "mlflow"):
        psutil.Process(before[name]["pid"]).kill()

    assert local(project, "status", str(stack.folder)).returncode == 1
    wait_for(lambda: local(project, "status", str(stack.folder)).returncode == 0, every=1)
    answer = retune(project, "predict", "--params", "models/m1/params.yaml", "invoice refund card money")
    assert answer.returncode == 0, answer.stderr
    assert "billing" in answer.stdout


def test_no_secret_is_in_logs_or_command_lines(retrained: dict[str, str], stack: Stack) -> None:
    commands = "\n".join(" ".join(process.cmdline()) for process in started_by(stack))
    visible = read_logs(*(stack.folder / "logs").glob("*.log")) + commands

    assert "postgres" in visible
    for name, secret in stack.secrets.items():
        assert secret not in visible, name
