"""Git commands: a missing commit is reported with the command to run, an unreadable repository with git's message."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from components.core.errors import NotFound, RetuneError
from components.core.process import quiet_environment
from flows.cli import app
from flows.dvc_adapter.repro import environment
from flows.pipeline import actions
from flows.pipeline.lineage import commit_of
from flows.project.checkout import checkout, checkouts, is_checkout, make_checkout, project_of
from flows.project.git import git, has_commit, head_commit, uncommitted
from flows.project.workspace import Workspace

COMMIT = ("-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "first", "--allow-empty")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "-q")
    git(folder, *COMMIT)
    return folder


def owned_by_another(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")


def branch_lost(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".git" / git(project, "symbolic-ref", "HEAD")).write_text("garbage\n", encoding="utf-8")


def objects_lost(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".git/objects").rename(project / ".git/lost")
    (project / ".git/objects").mkdir()


def head_emptied(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".git/HEAD").write_text("", encoding="utf-8")


def pointing_nowhere(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".git").rename(project / "git")
    (project / ".git").write_text("gitdir: /nowhere\n", encoding="utf-8")


def no_git(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (owned_by_another, "dubious ownership[\\s\\S]*safe.directory"),
        (branch_lost, "appears to be broken"),
        (objects_lost, "bad object"),
        (head_emptied, "not a git repository"),
        (pointing_nowhere, "not a git repository: /nowhere"),
        (no_git, "is git installed"),
    ],
)
def test_error_has_the_message_of_git(
    project: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Path, pytest.MonkeyPatch], None], message: str
) -> None:
    fault(project, monkeypatch)
    for command in (
        lambda: head_commit(project),
        lambda: commit_of(Workspace(project, project, project / "params.yaml")),
        lambda: make_checkout(project, os.getpid()),
    ):
        with pytest.raises(RetuneError, match=message) as error:
            command()
        assert "git init" not in str(error.value)


@pytest.mark.parametrize(("init", "remedy"), [(False, "`git init && git add --all"), (True, "`git add --all")])
def test_missing_commit_names_the_command(tmp_path: Path, init: bool, remedy: str) -> None:
    if init:
        git(tmp_path, "init", "-q")
    with pytest.raises(NotFound, match=remedy):
        commit_of(Workspace(tmp_path, tmp_path, tmp_path / "params.yaml"))
    with pytest.raises(NotFound, match=remedy), checkout(tmp_path):
        pass


def test_project_with_no_scm_needs_no_commit(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = True\n", encoding="utf-8")

    assert commit_of(Workspace(tmp_path, tmp_path, tmp_path / "params.yaml")) == "none"


def test_init_reports_a_missing_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"the router {number} is broken again,{'ab'[number % 2]}\n" for number in range(40))
    Path("rows.csv").write_text("text,label\n" + rows, encoding="utf-8")

    assert "git init && git add --all && git commit" in CliRunner().invoke(app, ["init", "rows.csv"]).stdout


def test_repository_of_a_git_hook_is_ignored(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, other = head_commit(project), tmp_path / "hub.git"
    git(tmp_path, "init", "-q", "--bare", str(other))
    hook = {"GIT_DIR": str(other), "GIT_WORK_TREE": str(other), "GIT_INDEX_FILE": str(other / "index"), "GIT_PREFIX": "x/"}
    hook |= {"GIT_LITERAL_PATHSPECS": "1", "GIT_ICASE_PATHSPECS": "1"}
    hook |= {"GIT_OBJECT_DIRECTORY": str(other / "objects"), "GIT_QUARANTINE_PATH": str(other / "objects/incoming")}
    for name, value in hook.items():
        monkeypatch.setenv(name, value)

    assert (head_commit(project), has_commit(project, before), has_commit(project, "f" * 40)) == (before, True, False)
    with checkout(project) as root:
        assert head_commit(root) == before
    assert not hook.keys() & environment(project).keys()
    quiet_environment()
    assert not hook.keys() & os.environ.keys()


def test_git_config_variables_are_kept(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owned_by_another(project, monkeypatch)
    for name, value in {"COUNT": "1", "KEY_0": "safe.directory", "VALUE_0": "*"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)

    assert len(head_commit(project)) == 40


def test_uncommitted_diff_can_be_applied(project: Path) -> None:
    file, before, after = project / "crlf.txt", b"one\r\ntwo\r\n", b"one\r\nzw\xf6lf  \r\n"
    file.write_bytes(before)
    git(project, "add", "-A")
    git(project, *COMMIT)
    file.write_bytes(after)
    status, _, diff = uncommitted(project).partition(b"# git diff")
    assert status.splitlines()[1] == b" M crlf.txt"
    file.write_bytes(before)
    subprocess.run(["git", "apply"], cwd=project, input=diff, check=True, capture_output=True)

    assert file.read_bytes() == after


def test_checkout_behind_a_symlink_is_detected(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk/state").mkdir(parents=True)
    (project / "var").symlink_to(tmp_path / "disk/state")
    (project / ".gitignore").write_bytes((Path(__file__).parents[3] / ".gitignore").read_bytes())
    assert git(project, "status", "--porcelain", "var") == ""
    with checkout(project) as root:
        monkeypatch.chdir(root)
        assert is_checkout(project)
        monkeypatch.chdir(project)
    assert not is_checkout(project)


def test_uncommitted_code_is_recorded_for_a_model_folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / ".gitignore").write_text("/var/\n", encoding="utf-8")
    git(project, "add", "-A")
    git(project, *COMMIT)
    (project / ".gitignore").write_text("/var/\n/more/\n", encoding="utf-8")
    workspace, kept = Workspace(project, project / "var/workspaces/m", project / "models/m/params.yaml"), list[bytes]()
    workspace.root.mkdir(parents=True)
    workspace.params.parent.mkdir(parents=True)
    workspace.params.write_text("name: m\n", encoding="utf-8")
    monkeypatch.setattr(actions, "read_params", lambda _: SimpleNamespace(name="m"))
    monkeypatch.setattr(actions, "lineage_of", lambda *_: "m")
    for name in ("edited_params", "overtaken_stages"):
        monkeypatch.setattr(actions.lock, name, lambda _: [])
    monkeypatch.setattr(actions, "store", lambda _: "")
    monkeypatch.setattr(actions.tracking, "run_key", lambda _: "")
    monkeypatch.setattr(actions.tracking, "record", lambda *_, uncommitted, **__: kept.append(uncommitted()))
    actions.record(workspace, [actions.unchanged_stage("train")])

    assert b"+/more/" in kept[0]


def test_project_in_a_subfolder_of_its_repository(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = project / "ml/retune"
    for folder in (below / "components", below / "flows"):
        folder.mkdir(parents=True)
        (folder / "code.py").write_text("pass\n", encoding="utf-8")
    (below / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    git(project, "add", "-A")
    git(project, *COMMIT)
    (project / "elsewhere").write_text("not ours", encoding="utf-8")

    assert "elsewhere" not in uncommitted(below).decode()
    with checkout(below) as root:
        assert (root / "dvc.yaml").is_file()
        assert (checkouts(below), root.is_relative_to(below / "var/runs")) == ([root], True)
        monkeypatch.chdir(root)
        assert is_checkout(below)
        assert git(root, "rev-parse", "HEAD:./components") == git(project, "rev-parse", "HEAD:ml/retune/components")
        monkeypatch.chdir(below)
    assert not is_checkout(below)
    assert list((below / "var/runs").iterdir()) == []


def test_project_of_a_checkout_needs_no_variable(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RETUNE_PROJECT", raising=False)
    (tmp_path / "disk").mkdir()
    (project / "var").symlink_to(tmp_path / "disk")
    for name in ("dvc.yaml", "components/code.py", "flows/code.py"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).touch()
    git(project, "add", "dvc.yaml", "components", "flows")
    git(project, *COMMIT)
    with checkout(project) as root:
        monkeypatch.chdir(root / "components")
        assert project_of() == project
        monkeypatch.chdir(project)
    assert project_of() == project


def test_make_clean_keeps_files_of_the_user(tmp_path: Path) -> None:
    repository = Path(__file__).parents[3]
    made = ["data/validated/x", "data/prepared/learn/x", "models/tuned/x", "models/trained/x", "reports/evaluation/x", "reports/index.html"]
    written = ["models/mails/params.yaml", "models/mails/rows.csv", "models/README.md", "data/rows.csv", "data/raw/x", "reports/notes.md"]
    for name in (*made, *written):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    subprocess.run(["make", "-f", str(repository / "Makefile"), "clean"], cwd=tmp_path, check=True, capture_output=True)

    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()) == sorted(written)
