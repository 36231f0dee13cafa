"""Workspaces inherit DVC's configuration as DVC resolves it, whatever characters the project's path contains."""

import stat
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

from components.core.errors import BadInput, BadParams
from components.mlflow_store.registry import checked_package, register
from components.mlflow_store.tracking import record
from flows.audit import worktree
from flows.dvc_adapter import cache, repro
from flows.dvc_adapter.config import cache_folder, default_remote, read, share_remote
from flows.dvc_adapter.lock import tracked_md5
from flows.project.checkout import checkout
from flows.project.git import git
from flows.project.workspace import Workspace, find_project, sync_workspace
from flows.settings import Settings
from tests.support.finished import LINEAGE, make_finished, new_store

TEAM = "[core]\n    remote = team\n['remote \"team\"']\n    url = ../../team\n"
HOSTILE = "Smith, Jones #1; 100% 50%25 %(x)s \"q\" 'a' $HOME `x` \\ [b] prö&jekt\t\x01"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for level in ("GLOBAL", "SYSTEM"):
        (tmp_path / level).mkdir()
        monkeypatch.setenv(f"DVC_{level}_CONFIG_DIR", str(tmp_path / level))
    return make(tmp_path / "project")


def make(folder: Path) -> Path:
    for name in (".dvc", "components", "flows", "models/m"):
        (folder / name).mkdir(parents=True)
    for name, text in {".dvc/config": TEAM, "dvc.yaml": "stages: {}\n", "models/m/params.yaml": "name: m\n"}.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def workspace_of(project: Path) -> Path:
    workspace = Workspace(project, project / "var/workspaces/m", project / "models/m/params.yaml")
    sync_workspace(workspace)
    return workspace.root


@pytest.mark.parametrize(
    ("file", "text", "remote", "cache"),
    [
        ("project/.dvc/config", TEAM, ("team", "team"), "project/.dvc/cache"),
        ("project/.dvc/config.local", "['remote \"team\"']\n    url = mine\n", ("team", "project/.dvc/mine"), "project/.dvc/cache"),
        (
            "project/.dvc/config.local",
            "[core]\n    remote = b\n['remote \"b\"']\n    url = ../b\n",
            ("b", "project/b"),
            "project/.dvc/cache",
        ),
        ("project/.dvc/config.local", "[cache]\n    dir = ../../shared\n", ("team", "team"), "shared"),
        ("GLOBAL/config", "[cache]\n    dir = ../all\n    type = hardlink,copy\n", ("team", "team"), "all"),
        ("SYSTEM/config", "[core]\n    remote = x\n['remote \"team\"']\n    jobs = 3\n", ("team", "team"), "project/.dvc/cache"),
    ],
)
def test_workspace_has_the_projects_remote_and_cache(
    project: Path, tmp_path: Path, file: str, text: str, remote: tuple[str, str], cache: str
) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    root = workspace_of(project)

    assert default_remote(root) == default_remote(project) == (remote[0], str(tmp_path / remote[1]))
    assert cache_folder(root) == cache_folder(project) == tmp_path / cache
    assert {name: values for name, values in read(root).items() if name not in ("core", "cache")} == {
        name: values for name, values in read(project).items() if name not in ("core", "cache")
    }


def test_rebuild_has_the_remotes_and_a_separate_cache(project: Path, tmp_path: Path) -> None:
    (project / ".dvc/config.local").write_text("[cache]\n    dir = /shared\n", encoding="utf-8")
    worktree.prepare_worktree(tmp_path / "rebuilt", project)

    assert default_remote(tmp_path / "rebuilt") == ("team", str(tmp_path / "team"))
    assert cache_folder(tmp_path / "rebuilt") == tmp_path / "rebuilt/.dvc/cache"


def test_credentials_are_readable_by_owner_only(project: Path) -> None:
    secret = '[\'remote "team"\']\n    url = https://ann:hidden@host/x\n    password = "a, b"\n    cert_path = ../cert.pem\n'
    (project / ".dvc/config.local").write_text(secret, encoding="utf-8")
    root = workspace_of(project)

    assert read(root)["remote"]["team"]["password"] == "a, b"
    assert read(root)["remote"]["team"]["cert_path"] == str(project / "cert.pem")
    assert stat.S_IMODE((root / ".dvc/config").stat().st_mode) == 0o600
    assert default_remote(root) == ("team", "https://ann:…@host/x")


def test_default_remote_is_in_var(project: Path) -> None:
    (project / ".dvc/config").write_text("", encoding="utf-8")

    assert default_remote(project) is None
    assert default_remote(workspace_of(project)) == ("local", str(project / "var/dvc-remote"))


def test_setting_overrides_default_remote_and_restores_it(project: Path) -> None:
    file = project / ".dvc/config.local"
    own = '# mine\n[core]\n    remote = b\n[\'remote "b"\']\n    url = "/a, b"\n'
    file.write_text(own, encoding="utf-8")
    file.chmod(0o600)
    for url in ("/srv/x, y", "/srv/z"):
        share_remote(file, Settings(dvc_remote=url))
        assert default_remote(project) == ("shared", url)
    assert default_remote(workspace_of_shared(project)) == ("shared", "/srv/z")
    share_remote(file, Settings(dvc_remote=""))

    assert default_remote(project) == ("b", "/a, b")
    assert file.read_text(encoding="utf-8").startswith("# mine")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def workspace_of_shared(project: Path) -> Path:
    (project / ".env").write_text("RETUNE_DVC_REMOTE=/srv/z\n", encoding="utf-8")
    root = workspace_of(project)
    (project / ".env").unlink()
    return root


@pytest.mark.parametrize("url", ["/team/disk", "s3://bucket/x"])
def test_users_remote_named_shared_is_kept(project: Path, url: str) -> None:
    (project / ".dvc/config.local").write_text(f"[core]\n    remote = shared\n['remote \"shared\"']\n    url = {url}\n", encoding="utf-8")

    assert default_remote(workspace_of(project)) == ("shared", url)
    assert default_remote(project) == ("shared", url)


def test_linked_state_folder_uses_the_projects_cache(project: Path, tmp_path: Path) -> None:
    (tmp_path / "disk/a/b/c/var").mkdir(parents=True)
    (project / "var").symlink_to(tmp_path / "disk/a/b/c/var")
    (project / ".dvc/config").write_text("", encoding="utf-8")
    root = workspace_of(project).resolve()  # DVC uses the real path

    assert root.is_relative_to(tmp_path / "disk")
    assert cache_folder(root) == project / ".dvc/cache"
    assert default_remote(root) == ("local", str(project / "var/dvc-remote"))


def test_old_workspace_remote_is_replaced(project: Path) -> None:
    root = workspace_of(project)
    (root / ".dvc/config.local").write_text("[core]\n    remote = shared\n['remote \"shared\"']\n    url = /old\n", encoding="utf-8")
    (root / ".dvc/config").write_text("[cache]\n    dir = /Smith, Jones\n", encoding="utf-8")

    assert default_remote(workspace_of(project)) == default_remote(project)


def test_invalid_configuration_is_named(project: Path) -> None:
    (project / ".dvc/config").write_text("[cache]\n    dir = /a, b\n", encoding="utf-8")
    with pytest.raises(BadParams, match=r"project/\.dvc: DVC's configuration cannot be read"):
        workspace_of(project)


@pytest.mark.parametrize("name", ["what?", "a:b", "{name}", "two\nlines"])
def test_path_with_unsupported_character_is_rejected(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="the path of a project cannot contain"):
        find_project(make(tmp_path / name))


@pytest.mark.slow
def test_clone_pulls_what_workspace_pushed(project: Path, tmp_path: Path) -> None:
    """The path contains every character that is special in files, shells and URLs."""
    hostile = make(tmp_path / HOSTILE / "p")
    around = set(tmp_path.rglob("*"))
    root = workspace_of(hostile)
    (root / "data/raw").mkdir(parents=True)
    (root / "data/raw/rows").write_text("rows", encoding="utf-8")
    repro.add_to_dvc([root / "data/raw"], root)
    repro.dvc(["push"], root, what="dvc push")
    clone = make(tmp_path / HOSTILE / "clone")
    (clone / "data").mkdir()
    pointer = (root / "data/raw.dvc").read_bytes()
    (clone / "data/raw.dvc").write_bytes(pointer)
    (clone / ".dvc/config").write_text(f"[core]\n    no_scm = true\n{TEAM.removeprefix('[core]')}", encoding="utf-8")
    repro.pull("data/raw.dvc", clone)

    assert (clone / "data/raw/rows").read_text(encoding="utf-8") == "rows"
    assert cache.cached_listing(hostile, tracked_md5(root, "data/raw") or "").keys() == {"rows"}
    others = {path for path in set(tmp_path.rglob("*")) - around if not path.is_relative_to(tmp_path / HOSTILE)}
    assert others == set(), "a file was written outside the project"


@pytest.mark.slow
def test_candidate_is_registered_in_hostile_path(tmp_path: Path, tiny_base: Path, tickets: pd.DataFrame) -> None:
    root = make_finished(tmp_path / HOSTILE, tiny_base, tickets)
    uri = new_store(root / "var")
    run = record(root, uri, lineage=LINEAGE, params={})
    version = register(root, uri, run_id=run.run_id, key=run.key, lineage=LINEAGE)

    assert (checked_package(uri, version) / "code/components").is_dir()
    assert Path(MlflowClient(uri).download_artifacts(run.run_id, "dvc.lock")).read_bytes() == (root / "dvc.lock").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [HOSTILE]


@pytest.mark.slow
def test_scheduled_checkout_works_in_hostile_path(tmp_path: Path) -> None:
    folder = make(tmp_path / HOSTILE)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start")
    with checkout(folder) as root:
        sync_workspace(Workspace(folder, root, root / "models/m/params.yaml", home=folder / "models/m", commit="c"))
        output = subprocess.run(
            [sys.executable, "-m", "dvc", "remote", "list"], cwd=root, capture_output=True, text=True, check=True
        ).stdout
        assert output.split()[0] == "team"
        assert cache_folder(root) == folder / ".dvc/cache"
