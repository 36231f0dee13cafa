"""A checkout that was left behind is removed, and no other: by its process on this host, by its lock where another host made it."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from flows.checkout import BEGINS, make_checkout, remove_abandoned
from flows.turn import RUNS, hold_folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for command in (["init", "-q"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def left_by(project: Path, host: str, age: float) -> Path:
    root = make_checkout(project, os.getpid())
    note = root.parent / "owner.json"
    note.write_text(json.dumps(json.loads(note.read_text(encoding="utf-8")) | {"host": host}), encoding="utf-8")
    then = time.time() - age
    os.utime(note, (then, then))
    return root


def test_the_checkout_of_a_living_process_stays(project: Path) -> None:
    root = make_checkout(project, os.getpid())
    remove_abandoned(project)

    assert (root / ".git").exists()


def test_the_checkout_of_a_process_that_is_gone_is_removed(project: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        root = make_checkout(project, process.pid)
        process.kill()
    remove_abandoned(project)

    assert not root.parent.exists()
    assert list((project / RUNS).iterdir()) == []


def test_of_another_host_the_lock_says_whether_a_run_works_in_it(project: Path) -> None:
    busy, idle, fresh = (left_by(project, "worker-2", age) for age in (2 * BEGINS, 2 * BEGINS, 0))
    with hold_folder(busy):
        remove_abandoned(project)

    assert (busy.exists(), idle.exists(), fresh.exists()) == (True, False, True)
