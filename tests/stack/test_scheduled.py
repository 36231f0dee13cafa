"""The main story on shared services: four models, two workers, and a machine that dies in the middle."""

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
from tests.stack.conftest import MODELS, Migration
from tests.support.project import git, retune, wait_for
from tests.support.stack_services import commit, finish, is_training, kill_machine_of, local, process_of, run_of, said, start, use

VICTIM = "m3"


@pytest.fixture(scope="module")
def retrained(stack: Stack, project: Path, migrated: Migration) -> dict[str, str]:
    """What became of a scheduled run of each model, started at once; one worker was killed while it trained one of them."""
    params = yaml.safe_load((project / "models" / VICTIM / "params.yaml").read_text(encoding="utf-8"))
    params["train"] |= {"epochs": 200, "patience": 0}
    (project / "models" / VICTIM / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    commit(project)
    deployed = retune(project, "deploy")
    assert deployed.returncode == 0, deployed.stderr
    names = [name.partition("/")[2] for name in deployed.stdout.split()]
    assert len(names) == MODELS
    first, *rest = [VICTIM, *(name for name in names if name != VICTIM)]
    killed = start(stack, first)
    runs = {name: start(stack, name) for name in rest}
    wait_for(lambda: is_training(killed) and is_followed(stack), 300, every=0.2)
    kill_machine_of(killed)
    wait_for(lambda: process_of(killed) is None)
    finish(stack, *runs.values())
    assert run_of(stack, killed)["state_type"] == "CRASHED"  # told by the next run: its slot is free
    runs[first] = start(stack, first)
    finish(stack, runs[first])
    return {name: f"{run_of(stack, run)['state_type']}: {run_of(stack, run)['state']['message']}" for name, run in runs.items()}


@pytest.fixture(scope="module")
def elsewhere(retrained: dict[str, str], stack: Stack, project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another machine: a clone, without cache or registry, and the settings."""
    clone = tmp_path_factory.mktemp("elsewhere") / "clone"
    git(clone.parent, "clone", "--quiet", str(project), str(clone))
    use(stack, clone)
    return clone


def is_followed(stack: Stack) -> bool:
    """Whether MLflow shows the victim's training while it is at work."""
    who = (USER, stack.secrets["MLFLOW_ADMIN_PASSWORD"])
    found = httpx.get(f"{stack.mlflow}/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": VICTIM}, auth=who)
    if not found.is_success:
        return False
    query = {"experiment_ids": [found.json()["experiment"]["experiment_id"]], "filter": "attributes.status = 'RUNNING'"}
    return bool(httpx.post(f"{stack.mlflow}/api/2.0/mlflow/runs/search", json=query, auth=who).json().get("runs"))


def test_four_models_are_retrained_by_two_workers_at_once(retrained: dict[str, str]) -> None:
    assert len(retrained) == MODELS
    for name, ended in retrained.items():
        assert ended.startswith("COMPLETED: PASS"), f"{name}: {ended}"


def test_registry_entries_have_their_own_model_and_data(
    retrained: dict[str, str], stack: Stack, project: Path, tmp_path: Path, settings_of_stack: None
) -> None:
    from components.mlflow_store import registry

    found = {}
    for model in find_models(project):
        params = read_params(model.params)
        source = take_snapshot(model.params.parent, tmp_path / model.name, snapshot=params.snapshot, required=params.made_task.columns)
        (version,) = registry.versions(stack.mlflow, model.name)
        assert "champion" in version.aliases
        assert version.tags["retune.data_digest"] == source.digest
        package = registry.checked_package(stack.mlflow, version) / "artifacts"  # every file of it against its hash
        assert yaml.safe_load((package / "params.yaml").read_text(encoding="utf-8")) == yaml.safe_load(
            model.params.read_text(encoding="utf-8")
        )
        assert [entry.version for entry in Ledger(stack.database("retune")).entries(model.name)] == [1]
        found[model.name] = version.tags
    assert len(found) == MODELS
    for once in ("retune.data_digest", "retune.weights", "retune.package", "retune.flow_run", "retune.key"):
        assert len({tags.get(once) for tags in found.values()}) == MODELS, once


def test_what_the_killed_machine_left_open_is_closed(
    retrained: dict[str, str], stack: Stack, project: Path, settings_of_stack: None
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(stack.mlflow)
    experiment = client.get_experiment_by_name(VICTIM)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=500)
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED", "FAILED"}
    assert any(run.info.status in ("KILLED", "FAILED") for run in runs)
    git(project, "worktree", "prune")
    assert len(git(project, "worktree", "list").splitlines()) == 1


def test_an_unchanged_model_is_not_made_again(retrained: dict[str, str], stack: Stack) -> None:
    (said,) = finish(stack, start(stack, "m1"))

    assert said.startswith("skipped: no new data"), said


def test_a_machine_that_has_nothing_finds_no_news(elsewhere: Path) -> None:
    done = retune(elsewhere, "retrain", "--inline", "m2")

    assert done.returncode == 0, done.stderr
    assert "skipped  m2: no new data" in done.stdout


def test_a_version_is_rebuilt_bit_by_bit_from_the_stores_alone(elsewhere: Path) -> None:
    done = retune(elsewhere, "rebuild", "m1", "1", "--json")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bit_equal"] is True


def test_a_service_that_is_killed_is_started_again(retrained: dict[str, str], stack: Stack, project: Path) -> None:
    before = json.loads((stack.folder / "state.json").read_text(encoding="utf-8"))["services"]
    for name in ("postgres", "s3", "mlflow"):
        psutil.Process(before[name]["pid"]).kill()

    assert local(project, "status", str(stack.folder)).returncode == 1
    wait_for(lambda: local(project, "status", str(stack.folder)).returncode == 0, every=1)
    answer = retune(project, "predict", "--params", "models/m1/params.yaml", "invoice refund card money")
    assert answer.returncode == 0, answer.stderr
    assert "billing" in answer.stdout


def test_no_secret_is_printed_or_stands_on_a_command_line(retrained: dict[str, str], stack: Stack) -> None:
    shown = said(*(stack.folder / "logs").glob("*.log")) + "\n".join(" ".join(one.cmdline()) for one in started_by(stack))

    assert "postgres" in shown
    for name, secret in stack.secrets.items():
        assert secret not in shown, name
