"""Which of Prefect's runs are judged by their process: only those of which this machine knows for sure that it is gone."""

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

NOBODY = 4194305  # above the highest number of a process


def marked(**other: object) -> dict[str, Any]:
    """A run of this process, but for what is `other` in its tag."""
    names = ("host", "pid", "started", "space", "begun")
    parts = dict(zip(names, orphaned_runs.tag().removeprefix(orphaned_runs.MARK).split("/"), strict=True)) | other
    return {"id": "1", "tags": [orphaned_runs.MARK + "/".join(str(part) for part in parts.values())]}


def of_worker(**more: object) -> dict[str, Any]:
    """A run that a worker claimed an hour ago and of whose process nothing is known."""
    claimed = {"timestamp": (datetime.now(UTC) - timedelta(hours=1)).isoformat()}
    return {
        "id": "1",
        "tags": [],
        "deployment_id": "d",
        "work_pool_name": POOL,
        "infrastructure_pid": None,
        "state": claimed,
    } | more


@pytest.mark.parametrize(
    ("other", "gone"),
    [
        ({}, False),
        ({"pid": NOBODY}, True),
        ({"begun": "00000000-1"}, True),  # before the machine was started again
        ({"started": 1.0}, False),  # the clock was set since
        ({"pid": NOBODY, "space": "00000000"}, False),  # of a container, or another machine, that is called the same
        ({"pid": NOBODY, "host": "another-host"}, False),
        ({"pid": NOBODY, "begun": ""}, True),  # without /proc
    ],
)
def test_only_a_process_that_is_surely_gone_is_gone(other: dict[str, object], gone: bool) -> None:
    assert orphaned_runs.process_is_gone(marked(**other), managed=False) is gone


def test_a_process_that_proc_hides_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    assert not orphaned_runs.process_is_gone(marked(pid=NOBODY), managed=True)


def test_a_number_that_another_process_has_now_is_gone() -> None:
    assert orphaned_runs.process_is_gone(marked(pid=os.getppid()), managed=False)


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="no /proc")
def test_a_tag_names_host_process_space_and_ticks() -> None:
    host, pid, _, space, begun = orphaned_runs.tag().removeprefix(orphaned_runs.MARK).split("/")

    assert (host, int(pid)) == (socket.gethostname(), os.getpid())
    assert len(space) == 8
    assert begun


@pytest.mark.parametrize(
    ("run", "gone"),
    [
        (of_worker(), True),
        (of_worker(work_pool_name=None), True),  # of the form for approvals
        (of_worker(work_pool_name="containers"), False),
        (of_worker(infrastructure_pid=str(NOBODY)), True),
        (of_worker(infrastructure_pid="docker-host:0123456789ab"), False),
    ],
)
def test_a_run_in_a_container_of_somebody_is_left_alone(run: dict[str, Any], gone: bool) -> None:
    assert orphaned_runs.process_is_gone(run, managed=True) is gone


def test_a_run_that_goes_on_in_another_process_is_not_gone_with_its_first() -> None:
    first = json.dumps(json.loads(owner()) | {"pid": NOBODY})

    assert orphaned_runs.is_begun_again(marked(), first)
    assert orphaned_runs.is_begun_again(marked(host="another-host"), first)
    assert not orphaned_runs.is_begun_again(marked(pid=NOBODY), first)
    assert not orphaned_runs.is_begun_again({"id": "1", "tags": []}, first)
