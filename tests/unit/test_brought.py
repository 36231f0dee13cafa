"""What a scheduled run holds against the last one: code, settings and base models, but not the model's own last version."""

from pathlib import Path

import pandas as pd
import pytest

from components.artifacts.manifest import BaseManifest
from flows.brought import basis
from flows.workspace import Workspace
from tests.project import git, make_project

pytestmark = pytest.mark.slow


def pin(workspace: Workspace, source: str, digest: str) -> None:
    workspace.base.mkdir(parents=True, exist_ok=True)
    BaseManifest(source=source, parts=(), digest=digest, taken_at="2026-11-28T00:00:00+00:00").write(workspace.base)


def test_another_base_is_news_and_the_models_own_next_version_is_not(tmp_path: Path, tiny_base: Path, tickets: pd.DataFrame) -> None:
    project = make_project(tmp_path / "project", tiny_base, tickets)
    workspace = Workspace(project, project, project / "params.yaml", commit=git(project, "rev-parse", "HEAD").strip())
    found = []
    for source, digest in (("models:/domain/1", "a"), ("models:/domain/2", "b"), ("models:/tickets/1", "c"), ("models:/tickets/2", "d")):
        pin(workspace, source, digest)
        found.append(basis(workspace))

    assert found[0] != found[1]
    assert found[2] == found[3]
    assert found[2] not in found[:2]
