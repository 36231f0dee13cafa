"""The basis of a scheduled run and the inputs of the last run."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from components.artifacts.manifest import BaseManifest
from components.ledger import Ledger, Retraining
from flows.project.workspace import Workspace
from flows.schedule.last_run_inputs import basis, hash_of_last_version, last_made
from tests.support.finished import new_store
from tests.support.project import git, make_project

pytestmark = pytest.mark.slow


def pin(workspace: Workspace, source: str, digest: str) -> None:
    workspace.base.mkdir(parents=True, exist_ok=True)
    BaseManifest(source=source, parts=(), digest=digest, taken_at="2026-11-28T00:00:00+00:00").write(workspace.base)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Workspace:
    project = make_project(tmp_path_factory.mktemp("inputs") / "project", tiny_base, tickets)
    return Workspace(project, project, project / "params.yaml", commit=git(project, "rev-parse", "HEAD").strip())


def test_new_base_changes_the_basis_unless_it_is_the_own_model(workspace: Workspace) -> None:
    hashes = []
    for source, digest in (("models:/domain/1", "a"), ("models:/domain/2", "b"), ("models:/tickets/1", "c"), ("models:/tickets/2", "d")):
        pin(workspace, source, digest)
        hashes.append(basis(workspace))

    assert hashes[0] != hashes[1]
    assert hashes[2] == hashes[3]
    assert hashes[2] not in hashes[:2]


def test_last_inputs_come_from_a_version_with_a_verdict(workspace: Workspace) -> None:
    ledger = Ledger(workspace.ledger)
    assert hash_of_last_version(workspace, "data/raw", "seen") is None
    client = MlflowClient(new_store(workspace.var))
    client.create_registered_model("tickets")
    for digest, verdict in (("first", {"retune.verdict": "PASS"}), ("second", {})):
        tags = {"retune.dvc_lock": json.dumps({"data/raw": digest}), **verdict}
        client.create_model_version("tickets", f"file:///nowhere/{digest}", tags=tags)
    for outcome, version in (("PASS", 1), *[("skipped", None)] * 200, ("failed", None)):
        ledger.record_retraining(
            Retraining(model="tickets", at=datetime.now(UTC), outcome=outcome, reason="", version=version, basis="", git_commit="c")
        )

    last = last_made(workspace)  # skipped and failed runs do not count
    assert last is not None
    assert last.version == 1
    assert hash_of_last_version(workspace, "data/raw", "second") == "first"  # registered by an interrupted run: still new
    client.set_model_version_tag("tickets", "2", "retune.verdict", "FAIL")
    assert hash_of_last_version(workspace, "data/raw", "second") == "second"  # judged
    assert hash_of_last_version(workspace, "data/raw", "third") == "first"
    client.create_model_version("tickets", "file:///nowhere/manual")
    assert hash_of_last_version(workspace, "data/raw", "second") == "second"
