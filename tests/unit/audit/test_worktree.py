"""The rebuild worktree: its content, its isolation and its removal."""

import configparser
import shutil
import signal
import subprocess
import sys
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from components.core.errors import BadInput, NotFound
from flows.audit.worktree import prepare_worktree, worktree
from flows.dvc_adapter.config import default_remote
from tests.support.project import started


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    for content in ("first", "second"):
        (folder / "file").write_text(content)
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", content)
    return folder


def test_worktree_contains_commit_and_is_removed(project: Path) -> None:
    with worktree(project, git(project, "rev-parse", "HEAD~1")) as root:
        assert (root / "file").read_text() == "first"

    assert not root.exists()
    assert git(project, "worktree", "list").count("\n") == 0
    assert (project / "file").read_text() == "second"


def test_worktree_is_removed_after_ctrl_c(project: Path) -> None:
    def interrupted() -> None:
        with worktree(project, git(project, "rev-parse", "HEAD")) as root:
            roots.append(root)
            raise KeyboardInterrupt

    roots: list[Path] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not roots[0].exists()
    assert git(project, "worktree", "list").count("\n") == 0


def test_kept_folder_remains(project: Path, tmp_path: Path) -> None:
    with worktree(project, git(project, "rev-parse", "HEAD"), tmp_path / "kept") as root:
        pass

    assert (root / "file").read_text() == "second"
    with pytest.raises(BadInput, match="is not empty"), worktree(project, git(project, "rev-parse", "HEAD"), tmp_path / "kept"):
        pass


def test_file_as_kept_folder_is_rejected(project: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")

    with (
        pytest.raises(BadInput, match="kept is a file: choose a folder"),
        worktree(project, git(project, "rev-parse", "HEAD"), tmp_path / "kept"),
    ):
        pass


# An unfinished rebuild: prints its folder and waits for a signal.
WORKING = """
import signal, sys
from pathlib import Path
from flows.audit.worktree import worktree
if sys.argv[2:] == ["as a command"]:
    from components.core.exits import cancel_on
    cancel_on(signal.SIGTERM, signal.SIGHUP)
with worktree(Path(sys.argv[1]), "HEAD") as root:
    print(root, flush=True)
    while True:
        signal.pause()
"""


def working(project: Path, *arguments: str, below: tuple[str, ...] = ()) -> AbstractContextManager[subprocess.Popen[str]]:
    command = [*below, sys.executable, "-c", WORKING, str(project), *arguments]
    return started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def folder_of(child: subprocess.Popen[str]) -> Path:
    assert child.stdout is not None
    return Path(child.stdout.readline().strip())


@pytest.mark.slow
def test_worktree_is_removed_on_hangup_unless_nohup(project: Path) -> None:
    with working(project, "as a command") as closed, working(project, "as a command", below=("nohup",)) as survivor:
        roots = [folder_of(child) for child in (closed, survivor)]
        assert all((root / "file").exists() for root in roots)

        for child in (closed, survivor):
            child.send_signal(signal.SIGHUP)

        assert "Cancelled: ended by SIGHUP" in closed.communicate()[1]
        assert not roots[0].parent.exists()
        assert survivor.poll() is None
        survivor.terminate()
        assert "Cancelled: ended by SIGTERM" in survivor.communicate()[1]
        assert not roots[1].parent.exists()
    assert git(project, "worktree", "list").count("\n") == 0


@pytest.mark.slow
def test_next_rebuild_removes_only_abandoned_worktrees(project: Path, tmp_path: Path) -> None:
    with ExitStack() as running:
        children = [running.enter_context(working(project)) for _ in range(3)]
        killed, swept, in_use = (folder_of(child) for child in children)
        for child in children[:2]:
            child.kill()
            child.communicate()
        shutil.rmtree(swept.parent)  # like a cleaner of temporary folders
        kept = tmp_path / "retune-rebuild-mine/checkout"
        with worktree(project, "HEAD", kept):
            assert not killed.parent.exists()
        with worktree(project, "HEAD") as root:
            listed = git(project, "worktree", "list")

        assert not any(str(path) in listed for path in (killed, swept))
        assert all(str(path) in listed and (path / "file").exists() for path in (in_use, kept))
        assert not root.exists()
        children[2].send_signal(signal.SIGINT)
        children[2].communicate()


@pytest.mark.parametrize(("commit", "message"), [("f" * 40, "git fetch"), ("none", "without a git commit"), ("", "without a git commit")])
def test_missing_commit_is_reported(project: Path, commit: str, message: str) -> None:
    with pytest.raises(NotFound, match=message), worktree(project, commit):
        pass


def test_worktree_dvc_has_only_the_projects_remotes(tmp_path: Path) -> None:
    project, root = tmp_path / "project", tmp_path / "rebuilt"
    (project / ".dvc").mkdir(parents=True)
    (project / ".dvc/config").write_text(
        "[core]\n    remote = local\n[cache]\n    dir = /shared\n    type = hardlink\n"
        "['remote \"local\"']\n    url = ../var/remote\n['remote \"s3\"']\n    url = s3://bucket/x%20y\n"
    )
    (project / ".dvc/config.local").write_text("['remote \"s3\"']\n    secret_access_key = hidden\n")
    prepare_worktree(root, project)

    config = configparser.ConfigParser(interpolation=None)
    config.read(root / ".dvc/config")
    assert (config["core"]["remote"], config["core"]["no_scm"]) == ("local", "true")
    assert dict(config["cache"]) == {"dir": "cache"}
    assert default_remote(root) == ("local", str(project / "var/remote"))
    assert dict(config["'remote \"s3\"'"]) == {"url": "s3://bucket/x%20y", "secret_access_key": "hidden"}
