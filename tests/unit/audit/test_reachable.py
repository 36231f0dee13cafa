"""What pruning must not touch."""

import json
import os
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.errors import NotThere, RetuneError
from components.ledger import Ledger, Request
from flows.audit.prune import dvc_objects
from flows.audit.reachable import idle, of_git, of_workspaces, reasons, with_members
from tests.unit.audit.models import model_of, promoted, version

A, B, C = "a" * 32, "b" * 32, "c" * 32


def test_the_newest_the_aliased_and_whatever_the_ledger_names_stay(tmp_path: Path) -> None:
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


def ask(ledger: Ledger, until: datetime) -> None:
    now = datetime.now(UTC)
    ledger.ask(Request("run2", "tickets", 2, 1, None, None, "INCONCLUSIVE", "e", "close", now - timedelta(days=2), until))


def test_what_waits_for_a_person_stays_until_it_expires(tmp_path: Path) -> None:
    model = model_of(tmp_path, version(1), version(2), version(3))
    ask(Ledger(model.ledger_url), datetime.now(UTC) + timedelta(days=1))
    assert set(reasons(model, keep=0)) == {1, 2}

    late = model_of(tmp_path / "late", version(1), version(2), version(3))
    ask(Ledger(late.ledger_url), datetime.now(UTC) - timedelta(days=1))
    assert reasons(late, keep=0) == {}


def test_without_the_ledger_nothing_is_known_and_nothing_goes(tmp_path: Path) -> None:
    with pytest.raises(NotThere, match=r"ledger\.db is missing"):
        reasons(model_of(tmp_path, version(1, "champion"), version(2)), keep=0)


def test_a_version_that_retune_did_not_register_stays(tmp_path: Path) -> None:
    stranger = version(1).__class__("tickets", 1, "", "", False)

    assert reasons(model_of(tmp_path, stranger), keep=0) == {1: "not registered by Retune"}


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_every_commit_keeps_what_it_points_at_on_any_branch(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "data").mkdir()
    for digest, branch in ((A, "main"), (B, "side")):
        git(tmp_path, "checkout", "-q", "-B", branch)
        (tmp_path / "dvc.lock").write_text(f"outs:\n- md5: {digest}.dir\n")
        (tmp_path / "data/raw.dvc").write_text(f"outs:\n- md5: {C}\n")
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-qm", branch)
    git(tmp_path, "checkout", "-q", "main")

    assert set(of_git(tmp_path)) == {f"{A}.dir", f"{B}.dir", C}


def test_a_commit_that_was_amended_away_still_counts(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    for digest, more in ((A, ()), (B, ("--amend",))):
        (tmp_path / "dvc.lock").write_text(f"md5: {digest}\n")
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-qm", "x", *more)

    assert set(of_git(tmp_path)) == {A, B}


def test_a_repository_that_git_cannot_read_stops_everything(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()

    with pytest.raises(RetuneError, match="nothing is deleted"):
        list(of_git(tmp_path))


def test_a_project_without_git_is_reached_by_its_workspaces_alone(tmp_path: Path) -> None:
    assert list(of_git(tmp_path)) == []
    (tmp_path / "dvc.lock").write_text(f"md5: {A}.dir\n")
    other = tmp_path / "var/workspaces/mine/data"
    other.mkdir(parents=True)
    (other / "raw.dvc").write_text(f"md5: {B}.dir\n")

    assert set(of_workspaces(tmp_path)) == {f"{A}.dir", f"{B}.dir"}


def test_a_folder_keeps_the_files_in_it(tmp_path: Path) -> None:
    listing = tmp_path / "files/md5/aa" / (A[2:] + ".dir")
    listing.parent.mkdir(parents=True)
    listing.write_text(json.dumps([{"md5": B, "relpath": "x"}]))

    assert with_members(tmp_path, [f"{A}.dir", C]) == {f"{A}.dir", B, C}


def test_a_cache_that_other_projects_share_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[cache]\n    dir = /shared/cache\n")

    assert dvc_objects(tmp_path, [], []) == (
        [],
        ["DVC's cache /shared/cache is shared with other projects: `dvc gc` there, from all of them"],
    )


def test_work_in_progress_is_abandoned_only_after_days(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint/weights").write_text("x")
    assert not idle(tmp_path / "checkpoint", days=1)

    old = time.time() - 3 * 86_400
    for path in (tmp_path / "checkpoint/weights", tmp_path / "checkpoint"):
        os.utime(path, (old, old))
    assert idle(tmp_path / "checkpoint", days=1)
    assert not idle(tmp_path / "checkpoint", days=7)
