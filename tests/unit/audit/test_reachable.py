"""What pruning must not touch."""

import json
import os
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from components.core.errors import NotFound, RetuneError
from components.ledger import Ledger, Request
from flows.audit.prune import dvc_objects, stays, unfinished
from flows.audit.retention import bases, idle, object_path, of_git, of_workspaces, reasons, with_members, workspaces_of
from tests.support.audit_models import model_of, promoted, version

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


@pytest.mark.parametrize("keep", range(8))
def test_so_many_of_the_newest_stay_or_all_where_there_are_fewer(tmp_path: Path, keep: int) -> None:
    model = model_of(tmp_path, *(version(number) for number in (1, 2, 3)))

    assert set(reasons(model, keep)) == {1: {3}, 2: {2, 3}}.get(keep, {1, 2, 3} if keep else set())


def test_the_base_of_an_adapter_stays_and_that_of_a_merged_model_may_go(tmp_path: Path) -> None:
    bases_of = [
        version(4, retune__base_source="models:/tickets/1", retune__adapter="d" * 64),
        version(5, retune__base_source="models:/other/2", retune__adapter="d" * 64),
        version(6, retune__base_source="models:/tickets/3"),
        version(7, retune__base_source="package:tickets/8", retune__adapter="d" * 64),
    ]
    model = model_of(tmp_path, *(version(number) for number in (1, 2, 3)), *bases_of)
    found = bases([model])

    said = "is the base of models:/tickets/{}, which stores an adapter"
    assert found == {"tickets": {1: said.format(4)}, "other": {2: said.format(5)}}
    assert stays(model, 1, [], found["tickets"]) == {1: said.format(4), 7: "one of the newest 1"}


def ask(ledger: Ledger, until: datetime) -> None:
    now = datetime.now(UTC)
    ledger.request_approval(Request("run2", "tickets", 2, 1, None, None, "INCONCLUSIVE", "e", "close", now - timedelta(days=2), until))


def test_what_waits_for_a_person_stays_until_it_expires(tmp_path: Path) -> None:
    model = model_of(tmp_path, version(1), version(2), version(3))
    ask(Ledger(model.ledger_url), datetime.now(UTC) + timedelta(days=1))
    assert set(reasons(model, keep=0)) == {1, 2}

    late = model_of(tmp_path / "late", version(1), version(2), version(3))
    ask(Ledger(late.ledger_url), datetime.now(UTC) - timedelta(days=1))
    assert reasons(late, keep=0) == {}


def test_without_the_ledger_nothing_is_known_and_nothing_goes(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"ledger\.db is missing"):
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


def committed(repository: Path, path: str, digest: str) -> None:
    """A commit that points at one hash."""
    (repository / path).parent.mkdir(parents=True, exist_ok=True)
    (repository / path).write_text(f"md5: {digest}\n")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", digest)


def test_a_project_in_a_folder_of_the_repository_is_reached_and_so_is_where_it_lay_before(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "config", "diff.relative", "true")
    committed(tmp_path, "dvc.lock", A)
    git(tmp_path, "rm", "-q", "dvc.lock")
    committed(tmp_path, "models/tickets/dvc.lock", B)

    assert set(of_git(tmp_path / "models/tickets")) == {A, B}


def test_the_first_commit_counts_whatever_git_is_set_to_show(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    git(tmp_path, "config", "log.showRoot", "false")
    committed(tmp_path, "project/dvc.lock", A)
    committed(tmp_path, "project/dvc.lock", B)

    assert set(of_git(tmp_path / "project")) == {A, B}


def test_what_a_merge_alone_has_counts_whatever_git_is_set_to_show(tmp_path: Path) -> None:
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

    assert set(of_git(tmp_path)) == {A, B, C}


def test_what_is_staged_counts_before_any_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "dvc.lock").write_text(f"md5: {A}\n")
    git(tmp_path, "add", "-A")
    (tmp_path / "dvc.lock").write_text("md5: none\n")

    assert set(of_git(tmp_path)) == {A}


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


def test_a_listing_that_is_corrupt_stops_everything(tmp_path: Path) -> None:
    listing = object_path(tmp_path, f"{A}.dir")
    listing.parent.mkdir(parents=True)
    for content in (b'[{"md5": "b', b"\xff", b"7", b'[{"relpath": "x"}]'):
        listing.write_bytes(content)
        with pytest.raises(RetuneError, match=r"is corrupt, so nothing is deleted: delete it, and `dvc pull`"):
            with_members(tmp_path, [f"{A}.dir"])


def test_the_listing_of_a_folder_goes_after_its_files_so_that_a_kill_loses_none(tmp_path: Path) -> None:
    cache = tmp_path / ".dvc/cache"
    for digest, content in ((f"{A}.dir", json.dumps([{"md5": B, "relpath": "x"}])), (B, "x")):
        object_path(cache, digest).parent.mkdir(parents=True, exist_ok=True)
        object_path(cache, digest).write_text(content)
    gone = version(2, retune__dvc_lock=json.dumps({"data/raw": f"{A}.dir"}))

    objects, _ = dvc_objects(tmp_path, [(model_of(tmp_path, gone), gone)], [])

    assert [thing.name for thing in objects] == [B, f"{A}.dir"]


def test_what_another_model_left_unfinished_stays_when_one_model_is_pruned(tmp_path: Path) -> None:
    roots = {"tickets": tmp_path, "mails": tmp_path / "var/workspaces/mails"}
    for name, root in roots.items():
        for path in (root / f"var/optuna/{name}.log", root / f"var/checkpoints/{name}/weights"):
            path.parent.mkdir(parents=True)
            path.touch()
        (root / "params.yaml").write_text(f"name: {name}\n")
    (tmp_path / "var/workspaces/broken").mkdir()
    (tmp_path / "var/workspaces/broken/params.yaml").write_text("name: [\n")

    for name in (*roots, None):
        found = [thing.name for thing in unfinished(workspaces_of(tmp_path, name), [], idle_days=-1)]
        assert found == ([name] * 2 if name else ["tickets", "tickets", "mails", "mails"])


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
