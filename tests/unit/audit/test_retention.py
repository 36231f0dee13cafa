"""Versions, objects and files that pruning must keep."""

import json
import os
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.core.errors import NotFound, RetuneError
from components.ledger import Ledger, Request
from flows.audit.prune import dvc_objects, kept_versions, unfinished
from flows.audit.retention import bases, hashes_of_git, hashes_of_workspaces, idle, reasons, with_members, workspaces_of
from flows.dvc_adapter.cache import object_path
from tests.support.audit_models import model_of, promoted, version

A, B, C = "a" * 32, "b" * 32, "c" * 32


def test_newest_aliased_and_ledger_versions_are_kept(tmp_path: Path) -> None:
    promoted(tmp_path, 2, 3, anchor=1)
    model = model_of(
        tmp_path, *(version(number) for number in (1, 2)), version(3, "champion"), version(4), version(5, "challenger"), version(6)
    )

    assert reasons(model, keep=1) == {
        1: "in the ledger",
        2: "in the ledger",
        3: "is champion",
        5: "is challenger",
        6: "one of the newest 1",
    }
    assert 6 not in reasons(model, keep=0)
    assert set(reasons(model, keep=100)) == {1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize("keep", range(8))
def test_keep_limits_the_newest_versions(tmp_path: Path, keep: int) -> None:
    model = model_of(tmp_path, *(version(number) for number in (1, 2, 3)))

    assert set(reasons(model, keep)) == {1: {3}, 2: {2, 3}}.get(keep, {1, 2, 3} if keep else set())


def test_base_of_adapter_is_kept_but_not_of_merged_model(tmp_path: Path) -> None:
    fine_tuned = [
        version(4, retune__base_source="models:/tickets/1", retune__adapter="d" * 64),
        version(5, retune__base_source="models:/other/2", retune__adapter="d" * 64),
        version(6, retune__base_source="models:/tickets/3"),
        version(7, retune__base_source="package:tickets/8", retune__adapter="d" * 64),
    ]
    model = model_of(tmp_path, *(version(number) for number in (1, 2, 3)), *fine_tuned)
    base_reasons = bases([model])

    reason = "is the base of models:/tickets/{}, which stores an adapter"
    assert base_reasons == {"tickets": {1: reason.format(4)}, "other": {2: reason.format(5)}}
    assert kept_versions(model, 1, [], base_reasons["tickets"]) == {1: reason.format(4), 7: "one of the newest 1"}


def request_approval(ledger: Ledger, until: datetime) -> None:
    now = datetime.now(UTC)
    ledger.request_approval(Request("run2", "tickets", 2, 1, None, None, "INCONCLUSIVE", "e", "close", now - timedelta(days=2), until))


def test_waiting_version_is_kept_until_its_request_expires(tmp_path: Path) -> None:
    model = model_of(tmp_path, version(1), version(2), version(3))
    request_approval(Ledger(model.ledger_url), datetime.now(UTC) + timedelta(days=1))
    assert set(reasons(model, keep=0)) == {1, 2}

    late = model_of(tmp_path / "late", version(1), version(2), version(3))
    request_approval(Ledger(late.ledger_url), datetime.now(UTC) - timedelta(days=1))
    assert reasons(late, keep=0) == {}


def test_missing_ledger_prevents_pruning(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"ledger\.db is missing"):
        reasons(model_of(tmp_path, version(1, "champion"), version(2)), keep=0)


def test_version_not_registered_by_retune_is_kept(tmp_path: Path) -> None:
    foreign = version(1).__class__("tickets", 1, "", "", False)

    assert reasons(model_of(tmp_path, foreign), keep=0) == {1: "not registered by Retune"}


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_hashes_of_all_branches_are_kept(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "data").mkdir()
    for digest, branch in ((A, "main"), (B, "side")):
        git(tmp_path, "checkout", "-q", "-B", branch)
        (tmp_path / "dvc.lock").write_text(f"outs:\n- md5: {digest}.dir\n")
        (tmp_path / "data/raw.dvc").write_text(f"outs:\n- md5: {C}\n")
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-qm", branch)
    git(tmp_path, "checkout", "-q", "main")

    assert set(hashes_of_git(tmp_path)) == {f"{A}.dir", f"{B}.dir", C}


def test_hashes_of_amended_commit_are_kept(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    for digest, more in ((A, ()), (B, ("--amend",))):
        (tmp_path / "dvc.lock").write_text(f"md5: {digest}\n")
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-qm", "x", *more)

    assert set(hashes_of_git(tmp_path)) == {A, B}


def committed(repository: Path, path: str, digest: str) -> None:
    """Commit a file with one hash."""
    (repository / path).parent.mkdir(parents=True, exist_ok=True)
    (repository / path).write_text(f"md5: {digest}\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", digest)


def test_project_in_subfolder_includes_its_old_location(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "config", "diff.relative", "true")
    committed(tmp_path, "dvc.lock", A)
    git(tmp_path, "rm", "-q", "dvc.lock")
    committed(tmp_path, "models/tickets/dvc.lock", B)

    assert set(hashes_of_git(tmp_path / "models/tickets")) == {A, B}


def test_first_commit_counts_despite_git_settings(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "config", "log.showRoot", "false")
    committed(tmp_path, "project/dvc.lock", A)
    committed(tmp_path, "project/dvc.lock", B)

    assert set(hashes_of_git(tmp_path / "project")) == {A, B}


def test_merge_commit_counts_despite_git_settings(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "config", "log.diffMerges", "off")
    committed(tmp_path, "dvc.lock", A)
    git(tmp_path, "checkout", "-q", "-b", "side")
    committed(tmp_path, "other", "x")
    git(tmp_path, "checkout", "-q", "main")
    git(tmp_path, "merge", "-q", "--no-ff", "--no-commit", "side")
    committed(tmp_path, "dvc.lock", B)
    committed(tmp_path, "dvc.lock", C)
    git(tmp_path, "reflog", "expire", "--expire=now", "--all")

    assert set(hashes_of_git(tmp_path)) == {A, B, C}


def test_staged_hashes_count_before_any_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "dvc.lock").write_text(f"md5: {A}\n")
    git(tmp_path, "add", "-A")
    (tmp_path / "dvc.lock").write_text("md5: none\n")

    assert set(hashes_of_git(tmp_path)) == {A}


def test_unreadable_repository_prevents_pruning(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()

    with pytest.raises(RetuneError, match="nothing is deleted"):
        list(hashes_of_git(tmp_path))


def test_project_without_git_uses_workspaces_only(tmp_path: Path) -> None:
    assert list(hashes_of_git(tmp_path)) == []
    (tmp_path / "dvc.lock").write_text(f"md5: {A}.dir\n")
    other = tmp_path / "var/workspaces/mine/data"
    other.mkdir(parents=True)
    (other / "raw.dvc").write_text(f"md5: {B}.dir\n")

    assert set(hashes_of_workspaces(tmp_path)) == {f"{A}.dir", f"{B}.dir"}


def test_folder_keeps_its_files(tmp_path: Path) -> None:
    listing = tmp_path / ".dvc/cache/files/md5/aa" / (A[2:] + ".dir")
    listing.parent.mkdir(parents=True)
    listing.write_text(json.dumps([{"md5": B, "relpath": "x"}]))

    assert with_members(tmp_path, [f"{A}.dir", C]) == {f"{A}.dir", B, C}


def test_corrupt_listing_prevents_pruning(tmp_path: Path) -> None:
    listing = object_path(tmp_path, f"{A}.dir")
    listing.parent.mkdir(parents=True)
    for content in (b'[{"md5": "b', b"\xff", b"7", b'[{"relpath": "x"}]'):
        listing.write_bytes(content)
        with pytest.raises(RetuneError, match=r"is corrupt, so nothing is deleted: delete the file, then `dvc pull`"):
            with_members(tmp_path, [f"{A}.dir"])


@pytest.mark.slow
def test_folder_listing_is_deleted_after_its_files(tmp_path: Path) -> None:
    for digest, content in ((f"{A}.dir", json.dumps([{"md5": B, "relpath": "x"}])), (B, "x")):
        object_path(tmp_path, digest).parent.mkdir(parents=True, exist_ok=True)
        object_path(tmp_path, digest).write_text(content)
    deleted = version(2, retune__dvc_lock=json.dumps({"data/raw": f"{A}.dir"}))

    objects, _ = dvc_objects(tmp_path, [(model_of(tmp_path, deleted), deleted)], [])

    assert [item.name for item in objects] == [B, f"{A}.dir"]


def test_unfinished_work_of_other_models_is_kept(tmp_path: Path) -> None:
    roots = {"tickets": tmp_path, "mails": tmp_path / "var/workspaces/mails"}
    for name, root in roots.items():
        for path in (root / f"var/optuna/{name}.log", root / f"var/checkpoints/{name}/weights"):
            path.parent.mkdir(parents=True)
            path.touch()
        (root / "params.yaml").write_text(f"name: {name}\n")
    (tmp_path / "var/workspaces/broken").mkdir()
    (tmp_path / "var/workspaces/broken/params.yaml").write_text("name: [\n")

    for name in (*roots, None):
        items = [item.name for item in unfinished(workspaces_of(tmp_path, name), [], idle_days=-1)]
        assert items == ([name] * 2 if name else ["tickets", "tickets", "mails", "mails"])


def test_shared_cache_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[cache]\n    dir = /shared/cache\n")

    assert dvc_objects(tmp_path, [], []) == (
        [],
        ["DVC's cache /shared/cache is shared with other projects: run `dvc gc` for all of them together"],
    )


def test_work_in_progress_is_abandoned_after_idle_days(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint/weights").write_text("x")
    assert not idle(tmp_path / "checkpoint", days=1)

    old = time.time() - 3 * 86_400
    for path in (tmp_path / "checkpoint/weights", tmp_path / "checkpoint"):
        os.utime(path, (old, old))
    assert idle(tmp_path / "checkpoint", days=1)
    assert not idle(tmp_path / "checkpoint", days=7)
