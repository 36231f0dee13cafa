"""Abandoned checkouts are removed: by process on this host, by lock on another host."""

import json
import os
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.core.errors import BadParams
from components.core.process import is_gone, owner
from flows.project.checkout import START_SECONDS, committed_params, make_checkout, remove_abandoned
from flows.project.run_locks import RUNS, folder_lock
from tests.support.project import started, wait_for


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


def test_checkout_of_a_running_process_is_kept(project: Path) -> None:
    root = make_checkout(project, os.getpid())
    remove_abandoned(project)

    assert (root / ".git").exists()


def test_checkout_of_a_dead_process_is_removed(project: Path) -> None:
    with started(["sleep", "60"]) as process:
        root = make_checkout(project, process.pid)
        process.kill()
    remove_abandoned(project)

    assert not root.parent.exists()
    assert list((project / RUNS).iterdir()) == []


def test_checkout_of_another_host_is_kept_while_locked(project: Path) -> None:
    busy, idle, fresh = (left_by(project, "worker-2", age) for age in (2 * START_SECONDS, 2 * START_SECONDS, 0))
    with folder_lock(busy):
        remove_abandoned(project)

    assert (busy.exists(), idle.exists(), fresh.exists()) == (True, False, True)


class Prefect(BaseHTTPRequestHandler):
    """A server with one running run; records the state changes."""

    changes: list[Any]

    def do_GET(self) -> None:
        self.answer({"id": "the-run", "state": {"type": "RUNNING"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "state" in body:
            self.changes.append((self.path, body["state"]["type"]))
        self.answer([] if self.path.endswith("/filter") else {})

    def answer(self, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


def test_run_of_a_dead_worker_is_set_to_crashed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Prefect.changes = []
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "the-run")
    with started(["sleep", "60"]) as process:
        make_checkout(project, process.pid)
        process.kill()
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "the-next-run")
    with HTTPServer(("127.0.0.1", 0), Prefect) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
        remove_abandoned(project)
        server.shutdown()
        thread.join()

    assert Prefect.changes == [("/api/flow_runs/the-run/set_state", "CRASHED")]
    assert list((project / RUNS).iterdir()) == []


def test_retried_run_does_not_crash_itself(project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "the-run")  # the id of the retried run
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # unreachable: a request would be logged
    with started(["sleep", "60"]) as process:
        make_checkout(project, process.pid)
        process.kill()
    remove_abandoned(project)

    assert "could not set the Prefect run" not in caplog.text
    assert list((project / RUNS).iterdir()) == []


def test_zombie_process_counts_as_dead() -> None:
    with started(["sleep", "60"]) as process:
        tag = owner(process.pid)
        assert not is_gone(tag)
        process.kill()
        wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE, 10, every=0.01)
        assert is_gone(tag)


def test_model_renamed_since_the_commit_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "models/mails").mkdir(parents=True)
    params = project / "models/mails/params.yaml"
    params.write_text("name: mails\n", encoding="utf-8")
    for command in (["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "mails"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    root = make_checkout(project, os.getpid())
    params.write_text("name: post\n", encoding="utf-8")

    assert committed_params(root, project, "mails", "c0ffee") == Path("models/mails/params.yaml")
    with pytest.raises(BadParams, match=r"models/mails/params\.yaml is not in commit c0ffee, or has another name there"):
        committed_params(root, project, "post", "c0ffee")
    with pytest.raises(BadParams, match=r"params\.yaml is not in commit c0ffee"):
        committed_params(root, project, "", "c0ffee")
