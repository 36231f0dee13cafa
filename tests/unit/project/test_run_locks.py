"""One run per model: a second one is skipped or waits, according to its settings."""

import logging
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from components.core.errors import Cancelled, Unavailable
from components.core.locks import DATABASE, LockTimeout
from flows.dvc_adapter.repro import RUNNING
from flows.project import run_locks
from flows.project.run_locks import folder_lock, run_lock
from flows.project.workspace import Workspace
from flows.schedule.scheduled_retrain import lock_model
from tests.support.project import ROOT


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(run_locks, "SECONDS", 0.1)
    (tmp_path / "var/runs").mkdir(parents=True)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return Workspace(tmp_path, tmp_path, tmp_path / "params.yaml")


def wait(workspace: Workspace) -> None:
    text = workspace.params.read_text(encoding="utf-8")
    assert "  on_overlap: skip" in text
    workspace.params.write_text(text.replace("  on_overlap: skip", "  on_overlap: queue"), encoding="utf-8")


def test_lock_is_per_model(workspace: Workspace) -> None:
    with run_lock(workspace.project, "diagnosis"):
        with (
            pytest.raises(LockTimeout, match=r"diagnosis\.lock has been held by another process"),
            run_lock(workspace.project, "diagnosis"),
        ):
            pass
        with run_lock(workspace.project, "mails"):
            pass


def test_overlapping_run_is_skipped(workspace: Workspace) -> None:
    with run_lock(workspace.project, "diagnosis"), ExitStack() as locks:
        assert lock_model(workspace, locks) is False
    with ExitStack() as locks:
        assert lock_model(workspace, locks) is True


def test_overlapping_run_waits_with_queue(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    wait(workspace)
    taken: list[float] = []

    def second() -> None:
        with ExitStack() as locks:
            assert lock_model(workspace, locks)
            taken.append(time.monotonic())

    with caplog.at_level(logging.INFO, logger="flows"), run_lock(workspace.project, "diagnosis"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.5)
        ended = time.monotonic()
    thread.join(300)

    assert taken
    assert taken[0] >= ended
    assert caplog.text.count("waiting for another run of diagnosis") == 1


def test_waiting_run_can_be_cancelled(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    wait(workspace)
    monkeypatch.setattr(RUNNING, "cancelled", threading.Event())
    threading.Timer(0.3, RUNNING.cancelled.set).start()
    with run_lock(workspace.project, "diagnosis"), ExitStack() as locks, pytest.raises(Cancelled, match="while it waited"):
        lock_model(workspace, locks)


@pytest.mark.parametrize("on_overlap", ["skip", "queue"])
def test_unreachable_database_is_not_an_overlap(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, on_overlap: str) -> None:
    if on_overlap == "queue":
        wait(workspace)
    monkeypatch.setenv(DATABASE, "postgresql+psycopg://u:hidden@127.0.0.1:9/d")
    with ExitStack() as locks, pytest.raises(Unavailable, match="is unreachable") as error:
        lock_model(workspace, locks)
    assert "hidden" not in str(error.value)


def test_second_run_in_a_workspace_is_refused(workspace: Workspace) -> None:
    with (
        folder_lock(workspace.root),
        pytest.raises(Unavailable, match="another run uses"),
        folder_lock(workspace.root),
    ):
        pass
