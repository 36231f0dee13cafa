from pathlib import Path

from flows.pipeline.lineage import uncommitted_files
from flows.project.git import head_commit
from flows.project.workspace import Workspace
from tests.support.project import git


def test_files_that_runs_write_are_not_changes(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("name: tickets\n", encoding="utf-8")
    (tmp_path / "dvc.lock").write_text("stages: {}\n", encoding="utf-8")
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "add", "-A")
    git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start")
    workspace, commit = Workspace(tmp_path, tmp_path, tmp_path / "params.yaml"), head_commit(tmp_path)

    for path in ("dvc.lock", "data/raw.dvc", "data/base.dvc", "models/mails/dvc.lock", "models/mails/raw.dvc"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("written by a run\n", encoding="utf-8")
    assert uncommitted_files(workspace, commit, ".") == 0

    (tmp_path / "params.yaml").write_text("name: mails\n", encoding="utf-8")
    (tmp_path / "models/mails/params.yaml").write_text("name: mails\n", encoding="utf-8")
    assert uncommitted_files(workspace, commit, ".") == 2
    assert uncommitted_files(workspace, commit, "models") == 1
