"""Scheduled runs: in a checkout of the commit, only if there is new data, started manually and by a Prefect worker."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from components.core.locks import lock
from components.ledger import Ledger
from components.mlflow_store.registry import versions
from flows.orchestrator.prefect_api import post, request
from tests.support.project import BIN, ROOT, change, environment, git, leftovers, make_project, prefect_of, retune, started, wait_for

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Iterator[Path]:
    """A project whose own model has manual runs only, and a second one in models/mails."""
    folder = make_project(tmp_path_factory.mktemp("scheduled") / "project", tiny_base, tickets)
    shutil.copy(ROOT / "prefect.yaml", folder)
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    (folder / "params.yaml").write_text(yaml.safe_dump(change(params, {"retrain": {"cron": "off"}})), encoding="utf-8")
    home = folder / "models/mails"
    home.mkdir(parents=True)
    shutil.copy(folder / "tickets.csv", home)
    mails = {"name": "mails", "base": {"model": "../../base-model"}, "retrain": {"cron": "* * * * *", "min_new_labels": 3}}
    # The scores of so small a model differ much between versions; only gates without comparison decide.
    mails["gates"] = {gate: {"role": "informational"} for gate in ("champion", "best_champion", "forgetting", "leakage", "slices")}
    (home / "params.yaml").write_text(yaml.safe_dump(change(params, mails)), encoding="utf-8")
    commit(folder)
    yield folder
    retune(folder, "down")


@pytest.fixture(scope="module")
def first_run(project: Path) -> dict[str, Any]:
    """The result of the first scheduled run of mails, in which training would fail with the uncommitted code."""
    training = project / "components/training/train.py"
    training.write_text("raise RuntimeError('this was never committed')\n", encoding="utf-8")
    result = retrain(project)
    git(project, "checkout", "--", "components/training/train.py")
    return result | {"changed": git(project, "status", "--porcelain").splitlines()}


@pytest.fixture
def services(project: Path) -> Iterator[None]:
    """Prefect's server and a worker."""
    assert retune(project, "up").returncode == 0
    yield
    retune(project, "down")


def commit(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "more")


def retrain(folder: Path, *arguments: str) -> dict[str, Any]:
    done = retune(folder, "retrain", "mails", "--inline", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def add_rows(folder: Path, *ids: str) -> None:
    with (folder / "models/mails/tickets.csv").open("a", encoding="utf-8") as file:
        file.writelines(f"{name},the {name} invoice payment is please new,billing\n" for name in ids)


def test_scheduled_run_uses_the_commit_and_cleans_up(project: Path, first_run: dict[str, Any]) -> None:
    assert (first_run["outcome"], first_run["version"]) == ("PASS", 1)
    assert first_run["git_commit"] in git(project, "log", "--format=%H").split()
    assert len(git(project, "worktree", "list").splitlines()) == 1
    assert {path.name for path in (project / "var/runs").iterdir()} <= {"mails.lock", "tickets.lock"}
    assert {line.removeprefix("?? models/mails/") for line in first_run["changed"]} == {"base.dvc", "dvc.lock", "raw.dvc"}
    assert list((project / "var/dvc-remote").rglob("*.dir")) != []
    version = versions(f"sqlite:///{project}/var/mlflow.db", "mails")[0]
    assert version.tags["retune.git_commit"] == first_run["git_commit"]
    assert version.tags["retune.dirty"] in ("0", "false")


@pytest.mark.usefixtures("first_run")
def test_run_without_new_labels_is_skipped(project: Path) -> None:
    assert "no new data: the 240 rows" in retrain(project)["reason"]
    add_rows(project, "x1", "x2")
    ended = retrain(project)

    assert ended["outcome"] == "skipped"
    assert "2 new labels since" in ended["reason"]
    assert "fewer than retrain.min_new_labels 3" in ended["reason"]
    ledger = Ledger(f"sqlite:///{project}/var/ledger.db")
    assert [one.outcome for one in ledger.retrainings("mails", last=2)] == ["skipped", "skipped"]
    (line,) = [one for one in json.loads(retune(project, "status", "--all", "--json").stdout)["models"] if one["model"] == "mails"]
    assert line["champion"] == 1
    assert line["last_run"].startswith("skipped")


def test_uncommitted_model_is_refused(project: Path) -> None:
    (project / "models/new").mkdir()
    (project / "models/new/params.yaml").write_text((project / "models/mails/params.yaml").read_text().replace("name: mails", "name: new"))
    refused = retune(project, "retrain", "new", "--inline")
    shutil.rmtree(project / "models/new")

    assert refused.returncode == 2
    assert "models/new/params.yaml is not in commit" in refused.stderr
    unknown = retune(project, "retrain", "mail", "--inline")
    assert (unknown.returncode, "did you mean 'mails'" in unknown.stderr) == (2, True)


@pytest.mark.usefixtures("first_run")
def test_killed_scheduled_run_is_cleaned_up(project: Path) -> None:
    newest = versions(f"sqlite:///{project}/var/mlflow.db", "mails")[-1].number
    add_rows(project, "x3", "x4", "x5")
    pointer, before = project / "models/mails/raw.dvc", (project / "models/mails/raw.dvc").read_text(encoding="utf-8")
    command = [str(BIN / "retune"), "retrain", "mails", "--inline"]
    with started(command, cwd=project, env=environment(project), stderr=subprocess.DEVNULL) as run:
        wait_for(lambda: pointer.read_text(encoding="utf-8") != before)  # the new rows are known to DVC, and no model is made of them
        run.terminate()
        assert run.wait(300) == 130
    assert not leftovers(project)
    assert sorted(path.name for path in (project / "var/runs").iterdir()) == ["mails.lock", "mails.open"]
    with started(command, cwd=project, env=environment(project), stderr=subprocess.DEVNULL) as run:
        wait_for(lambda: any((project / "var/runs").glob("*/checkout/data/prepared/*")))
        run.kill()
    wait_for(lambda: not leftovers(project))
    assert (project / "var/runs/mails.open").read_text(encoding="utf-8") == "begun"

    (project / "var/dvc-remote").rename(project / "var/remote-aside")
    (project / "var/dvc-remote").write_text("a disk that is not mounted", encoding="utf-8")
    unsent = retune(project, "retrain", "mails", "--inline")
    (project / "var/dvc-remote").unlink()
    (project / "var/remote-aside").rename(project / "var/dvc-remote")

    assert (unsent.returncode, "dvc push --run-cache failed" in unsent.stderr) == (75, True), unsent.stderr
    (last,) = Ledger(f"sqlite:///{project}/var/ledger.db").retrainings("mails")
    assert (last.outcome, last.version) == ("PASS", newest + 1)  # what follows a verdict does not change it
    assert (project / "var/runs/mails.open").read_text(encoding="utf-8") == "made"
    sent = set((project / "var/dvc-remote").rglob("*.dir"))
    assert retrain(project)["outcome"] == "skipped"
    assert set((project / "var/dvc-remote").rglob("*.dir")) > sent
    assert [path.name for path in (project / "var/runs").iterdir()] == ["mails.lock"]


def test_overlapping_run_is_skipped(project: Path) -> None:
    with lock(project / "var/runs/mails.lock", 1):
        assert retrain(project)["reason"] == "another run of the model is active"
        busy = retune(project, "run", "--model", "mails", "--inline")

    assert (busy.returncode, "held by another process" in busy.stderr) == (75, True), busy.stderr


@pytest.mark.usefixtures("first_run")
def test_failed_run_is_recorded(project: Path) -> None:
    table = project / "models/mails/tickets.csv"
    table.rename(table.with_suffix(".aside"))
    failed = retune(project, "retrain", "mails", "--inline")
    table.with_suffix(".aside").rename(table)

    assert failed.returncode == 2
    (last,) = Ledger(f"sqlite:///{project}/var/ledger.db").retrainings("mails")
    assert (last.outcome, last.version, "tickets.csv" in last.reason) == ("failed", None, True)
    assert retrain(project)["outcome"] == "skipped"


@pytest.mark.usefixtures("first_run")
def test_another_base_model_triggers_a_run(project: Path) -> None:
    config = project / "base-model/tokenizer_config.json"
    config.write_text(config.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    done = retune(project, "retrain", "mails", "--inline")

    assert done.returncode == 0, done.stderr
    assert "code, settings or base model changed since the run of" in done.stderr
    assert retrain(project)["outcome"] == "skipped"


@pytest.mark.usefixtures("first_run", "services")
def test_schedule_triggers_a_run_that_promotes(project: Path) -> None:
    ledger = Ledger(f"sqlite:///{project}/var/ledger.db")
    newest = versions(f"sqlite:///{project}/var/mlflow.db", "mails")[-1].number
    add_rows(project, "x6", "x7", "x8")
    assert "The services were already running: `retune down`" in retune(project, "up", "--workers", "2").stdout
    assert retune(project, "deploy", "--pool", "nowhere").returncode == 1
    deployed = retune(project, "deploy")
    assert deployed.returncode == 0, deployed.stderr
    assert {"retrain/tickets", "retrain/mails", "promote/promote", "score/score", "prune/prune"} <= set(deployed.stdout.split())
    wait_for(lambda: ledger.retrainings("mails")[0].version == newest + 1, 400, every=2)

    (last,) = ledger.retrainings("mails")
    assert (last.outcome, last.flow_run is not None) == ("PASS", True), last.reason
    head = ledger.head("mails")
    assert head is not None
    assert (head.version, head.action) == (newest + 1, "promoted")
    said = retune(project, "status", "--all").stdout
    assert "mails" in said
    assert "workers: ok, 1 running" in said
    wait_for(lambda: ledger.retrainings("mails")[0].outcome == "skipped", every=2)  # the next one has nothing to do
    assert ledger.head("tickets") is None  # manual runs only


@pytest.mark.usefixtures("services")
def test_disabled_or_deleted_model_has_no_scheduled_runs(project: Path) -> None:
    mails, gone = project / "models/mails/params.yaml", project / "models/gone"
    shutil.copytree(mails.parent, gone)
    text = mails.read_text(encoding="utf-8")
    (gone / "params.yaml").write_text(text.replace("name: mails", "name: gone"), encoding="utf-8")
    assert "retrain/gone" in retune(project, "deploy").stdout.split()
    assert [one["active"] for one in deployment(project, "mails")["schedules"]] == [True]
    shutil.rmtree(gone)
    mails.write_text(text.replace("cron: '* * * * *'", "cron: 'off'"), encoding="utf-8")
    deployed = retune(project, "deploy")

    assert deployed.returncode == 0, deployed.stderr
    assert deployment(project, "mails")["schedules"] == []
    assert request("GET", f"{api(project)}/deployments/name/retrain/gone").status_code == 404
    assert "removed the deployment retrain/gone" in deployed.stderr
    query = {
        "deployments": {"id": {"any_": [deployment(project, "mails")["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
    }
    assert post(f"{api(project)}/flow_runs/filter", query).json() == []
    mails.write_text(text, encoding="utf-8")


@pytest.mark.usefixtures("first_run")
def test_data_of_a_manual_run_is_not_new(project: Path) -> None:
    add_rows(project, "y1", "y2", "y3")
    done = retune(project, "run", "--model", "mails", "--inline", "--json")

    assert json.loads(done.stdout)["up_to_date"] is False
    assert "no new data" in retrain(project)["reason"]


@pytest.mark.usefixtures("services")
def test_late_run_is_skipped_and_slot_is_freed(project: Path) -> None:
    """A long run is killed with its worker; while it runs, a second run of the model does not start."""
    home, mails = project / "params.yaml", project / "models/mails/params.yaml"  # the first never had a schedule that could be due still
    params, text = yaml.safe_load(home.read_text(encoding="utf-8")), mails.read_text(encoding="utf-8")
    home.write_text(yaml.safe_dump(change(params, {"train": {"epochs": 2000, "patience": 0}})), encoding="utf-8")
    mails.write_text(text.replace("cron: '* * * * *'", "cron: 'off'"), encoding="utf-8")
    commit(project)
    assert retune(project, "down").returncode == 0  # this test needs two workers
    assert retune(project, "up", "--workers", "2").returncode == 0
    assert retune(project, "deploy").returncode == 0
    first = start_run(project)
    checkouts = project / "var/runs"
    wait_for(lambda: any(checkouts.glob("*/checkout/models/trained/history.jsonl")), 300, every=1)
    late = start_run(project)
    wait_for(lambda: state(project, late) in ("CANCELLED", "COMPLETED", "FAILED"), every=1)
    assert (state(project, late), state(project, first)) == ("CANCELLED", "RUNNING")

    (history,) = checkouts.glob("*/checkout/models/trained/history.jsonl")
    owner = json.loads((history.parents[3] / "owner.json").read_text(encoding="utf-8"))
    os.kill(owner["pid"], signal.SIGKILL)
    wait_for(lambda: state(project, first) == "CRASHED", every=1)
    home.write_text(yaml.safe_dump(change(params, {"train": {"epochs": 2}})), encoding="utf-8")
    mails.write_text(text, encoding="utf-8")
    commit(project)
    next_one = start_run(project)
    wait_for(lambda: state(project, next_one) in ("COMPLETED", "CANCELLED", "FAILED"), 400, every=2)
    assert state(project, next_one) == "COMPLETED"
    wait_for(lambda: not any(checkouts.glob("*/owner.json")))
    assert len(git(project, "worktree", "list").splitlines()) == 1


def api(project: Path) -> str:
    return prefect_of(project / "var")


def start_run(project: Path) -> str:
    """Start a run of tickets like the button of Prefect's page, and return its id."""
    body = {"state": {"type": "SCHEDULED"}}
    return str(post(f"{api(project)}/deployments/{deployment(project, 'tickets')['id']}/create_flow_run", body, timeout=300).json()["id"])


def deployment(project: Path, model: str) -> dict[str, Any]:
    found: dict[str, Any] = request("GET", f"{api(project)}/deployments/name/retrain/{model}").raise_for_status().json()
    return found


def state(project: Path, run: str) -> str:
    return str(request("GET", f"{api(project)}/flow_runs/{run}").raise_for_status().json()["state"]["type"])


@pytest.mark.usefixtures("services")
def test_down_stops_all_services(project: Path) -> None:
    assert retune(project, "down").stdout.strip() == "stopped"

    wait_for(lambda: not leftovers(project))
    assert retune(project, "down").stdout.strip() == "nothing was running"
    assert "services: not running" in retune(project, "status", "--all").stdout
