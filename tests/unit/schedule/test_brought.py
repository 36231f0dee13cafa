"""What a scheduled run holds against the last one: code, settings and base models, but not the model's own last version."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from components.artifacts.manifest import BaseManifest
from components.ledger import Ledger, Retraining
from flows.project.workspace import Workspace
from flows.schedule.last_run_inputs import basis, last_made, of_last_version
from tests.support.finished import new_store
from tests.support.project import git, make_project

pytestmark = pytest.mark.slow


def pin(workspace: Workspace, source: str, digest: str) -> None:
    workspace.base.mkdir(parents=True, exist_ok=True)
    BaseManifest(source=source, parts=(), digest=digest, taken_at="2026-11-28T00:00:00+00:00").write(workspace.base)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Workspace:
    project = make_project(tmp_path_factory.mktemp("brought") / "project", tiny_base, tickets)
    return Workspace(project, project, project / "params.yaml", commit=git(project, "rev-parse", "HEAD").strip())


def test_another_base_is_news_and_the_models_own_next_version_is_not(workspace: Workspace) -> None:
    found = []
    for source, digest in (("models:/domain/1", "a"), ("models:/domain/2", "b"), ("models:/tickets/1", "c"), ("models:/tickets/2", "d")):
        pin(workspace, source, digest)
        found.append(basis(workspace))

    assert found[0] != found[1]
    assert found[2] == found[3]
    assert found[2] not in found[:2]


def test_only_a_version_with_a_verdict_says_what_was_learnt(workspace: Workspace) -> None:
    ledger = Ledger(workspace.ledger)
    assert of_last_version(workspace, "data/raw", "seen") is None
    client = MlflowClient(new_store(workspace.var))
    client.create_registered_model("tickets")
    for digest, verdict in (("first", {"retune.verdict": "PASS"}), ("second", {})):
        tags = {"retune.dvc_lock": json.dumps({"data/raw": digest}), **verdict}
        client.create_model_version("tickets", f"file:///nowhere/{digest}", tags=tags)
    for outcome, version in (("PASS", 1), *[("skipped", None)] * 200, ("failed", None)):
        ledger.record_retraining(
            Retraining(model="tickets", at=datetime.now(UTC), outcome=outcome, reason="", version=version, basis="", git_commit="c")
        )

    last = last_made(workspace)  # however often there was nothing to do since
    assert last is not None
    assert last.version == 1
    assert of_last_version(workspace, "data/raw", "second") == "first"  # brought under DVC, registered, and cut short: news still
    client.set_model_version_tag("tickets", "2", "retune.verdict", "FAIL")
    assert of_last_version(workspace, "data/raw", "second") == "second"  # judged, by whoever made it
    assert of_last_version(workspace, "data/raw", "third") == "first"
    client.create_model_version("tickets", "file:///nowhere/by-hand")
    assert of_last_version(workspace, "data/raw", "second") == "second"
