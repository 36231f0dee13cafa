"""Taking a release into a clone: old versions still answer, and own models and gates merge without conflicts (docs/upgrade.md)."""

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from components.core.errors import NotFound
from components.mlflow_store.connection import connect, ensure_experiment
from components.mlflow_store.registry import predict, verify, versions
from components.mlflow_store.registry.register import create_version, mark_complete, upload_package
from components.mlflow_store.registry.versions import PACKAGE
from flows.audit.rebuild_inputs import read_recipe
from flows.audit.registered_model import RegisteredModel
from flows.audit.worktree import worktree
from tests.support.finished import new_store
from tests.support.project import ROOT, environment, git, make_project, retune

FIXTURES = ROOT / "tests/fixtures"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of a version that was registered before the code moved to its present layout."""
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(FIXTURES / "version_before_0_1_0.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "artifacts"


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory, package: Path) -> str:
    """A store of today with that version in it, as number 1 of `tickets`."""
    uri = new_store(tmp_path_factory.mktemp("store") / "var")
    client = connect(uri)
    tags = json.loads((FIXTURES / "version_before_0_1_0.json").read_text(encoding="utf-8"))
    run = client.create_run(ensure_experiment(client, uri, "tickets")).info.run_id

    def build(folder: Path, ids: object) -> None:
        shutil.copytree(package, folder)

    model, whole = upload_package(client, uri, "tickets", tags["retune.key"], run, build)
    assert whole == tags[PACKAGE]
    mark_complete(client, "tickets", create_version(client, uri, "tickets", model, run, tags, ""), run, challenger=False)
    return uri


@pytest.mark.slow
def test_old_version_answers_as_evaluated(uri: str) -> None:
    verified = verify(uri, "tickets", 1)

    assert verified.rows == 10
    assert verified.difference < 1e-6
    assert (verified.code / "tasks").is_dir()  # its own code, in the layout of then


@pytest.mark.exhaustive
@pytest.mark.slow
def test_old_version_predicts(uri: str, package: Path) -> None:
    questions = pq.read_table(package / "artifacts/questions.parquet").to_pandas()

    answers = predict(uri, "tickets/1", questions[["text"]])

    assert answers["label"].tolist() == questions["predicted"].tolist()


def test_rebuild_of_an_old_version_names_its_commit(uri: str, tmp_path: Path) -> None:
    model = RegisteredModel("tickets", tmp_path, uri, str(tmp_path / "ledger.db"), tuple(versions(uri, "tickets")))
    recipe = read_recipe(model, model.version(1))
    git(tmp_path, "init", "-q")

    with pytest.raises(NotFound, match=f"commit {recipe.commit[:12]} is not in the repository"), worktree(tmp_path, recipe.commit):
        pass
    assert recipe.stages == ("validate", "preprocess", "tune", "train", "evaluate")


GATE = '''"""Rejects every candidate: a gate of the fork."""

from components.artifacts.verdict import GateResult, Outcome
from components.gates.support.evidence import Evidence, GateSection


class Params(GateSection):
    """No settings of its own."""


def decide(evidence: Evidence, params: Params) -> GateResult:
    """Return FAIL."""
    return GateResult(gate="house_rule", outcome=Outcome.FAIL, reason="the house rule rejects every candidate")
'''


@pytest.mark.slow
@pytest.mark.exhaustive
def test_fork_with_own_model_and_gate_takes_a_release(tmp_path: Path, tiny_base: Path, tickets: pd.DataFrame) -> None:
    fork = make_project(tmp_path / "fork", tiny_base, tickets)
    commit = ("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm")
    git(fork, "checkout", "-qb", "release")
    (fork / "components/gates/floor.py").write_text((fork / "components/gates/floor.py").read_text() + "\n\nRELEASED = True\n")
    (fork / "flows/new_module.py").write_text('"""New in the release."""\n')
    git(fork, "add", "-A")
    git(fork, *commit, "A release")
    git(fork, "checkout", "-q", "main")
    (fork / "components/gates/house_rule.py").write_text(GATE)
    (fork / "models/own").mkdir(parents=True)
    text = (fork / "params.yaml").read_text(encoding="utf-8").replace("test_budget:", "looks:")
    (fork / "models/own/params.yaml").write_text(
        text.replace("name: tickets", "name: own").replace("tickets.csv", "../../tickets.csv").replace("base-model", "../../base-model")
    )
    git(fork, "add", "-A")
    git(fork, *commit, "Add our model and gate")

    git(fork, "-c", "user.name=t", "-c", "user.email=t@t", "merge", "-q", "release", "-m", "Merge the release")
    done = retune(fork, "run", "--inline", "--model", "own")

    assert "gates.looks is now gates.test_budget" in done.stderr + done.stdout
    assert "house_rule: the house rule rejects every candidate" in done.stdout
    assert (
        subprocess.run(["git", "status", "--porcelain"], cwd=fork, env=environment(fork), capture_output=True, text=True).stdout.count("UU")
        == 0
    )
