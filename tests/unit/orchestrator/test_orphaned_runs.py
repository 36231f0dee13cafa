"""Prefect runs count as orphaned only if their process has surely died on this machine."""

import json
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.core.process import owner
from flows.orchestrator import orphaned_runs
from flows.orchestrator.prefect_api import POOL

NO_PID = 4194305  # above the highest PID


def tagged_run(**changed: object) -> dict[str, Any]:
    """Return a run of this process, with the parts of its tag in `changed` replaced."""
    names = ("host", "pid", "started", "space", "ticks")
    parts = dict(zip(names, orphaned_runs.tag().removeprefix(orphaned_runs.MARK).split("/"), strict=True)) | changed
    return {"id": "1", "tags": [orphaned_runs.MARK + "/".join(str(part) for part in parts.values())]}


def claimed_run(**more: object) -> dict[str, Any]:
    """Return a run that a worker claimed an hour ago, without a known process."""
    state = {"timestamp": (datetime.now(UTC) - timedelta(hours=1)).isoformat()}
    return {
        "id": "1",
        "tags": [],
        "deployment_id": "d",
        "work_pool_name": POOL,
        "infrastructure_pid": None,
        "state": state,
    } | more


@pytest.mark.parametrize(
    ("changed", "dead"),
    [
        ({}, False),
        ({"pid": NO_PID}, True),
        ({"ticks": "00000000-1"}, True),  # before a reboot
        ({"started": 1.0}, False),  # the clock was changed
        ({"pid": NO_PID, "space": "00000000"}, False),  # of a container or machine with the same name
        ({"pid": NO_PID, "host": "another-host"}, False),
        ({"pid": NO_PID, "ticks": ""}, True),  # without /proc
    ],
)
def test_only_surely_dead_process_counts_as_dead(changed: dict[str, object], dead: bool) -> None:
    assert orphaned_runs.process_is_gone(tagged_run(**changed), managed=False) is dead


def test_process_hidden_in_proc_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    assert not orphaned_runs.process_is_gone(tagged_run(pid=NO_PID), managed=True)


def test_reused_pid_counts_as_dead() -> None:
    assert orphaned_runs.process_is_gone(tagged_run(pid=os.getppid()), managed=False)


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="no /proc")
def test_tag_has_host_pid_space_and_ticks() -> None:
    host, pid, _, space, ticks = orphaned_runs.tag().removeprefix(orphaned_runs.MARK).split("/")

    assert (host, int(pid)) == (socket.gethostname(), os.getpid())
    assert len(space) == 8
    assert ticks


@pytest.mark.parametrize(
    ("run", "dead"),
    [
        (claimed_run(), True),
        (claimed_run(work_pool_name=None), True),  # of the approval form
        (claimed_run(work_pool_name="containers"), False),
        (claimed_run(infrastructure_pid=str(NO_PID)), True),
        (claimed_run(infrastructure_pid="docker-host:0123456789ab"), False),
    ],
)
def test_run_in_container_is_left_unchanged(run: dict[str, Any], dead: bool) -> None:
    assert orphaned_runs.process_is_gone(run, managed=True) is dead


def test_restarted_run_outlives_its_first_process() -> None:
    first = json.dumps(json.loads(owner()) | {"pid": NO_PID})

    assert orphaned_runs.was_restarted(tagged_run(), first)
    assert orphaned_runs.was_restarted(tagged_run(host="another-host"), first)
    assert not orphaned_runs.was_restarted(tagged_run(pid=NO_PID), first)
    assert not orphaned_runs.was_restarted({"id": "1", "tags": []}, first)
