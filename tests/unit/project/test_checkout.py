"""A checkout that was left behind is removed, and no other: by its process on this host, by its lock where another host made it."""

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
from flows.project.checkout import BEGINS, committed, make_checkout, remove_abandoned
from flows.project.run_locks import RUNS, folder_lock
from tests.support.project import wait_for


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
    with folder_lock(busy):
        remove_abandoned(project)

    assert (busy.exists(), idle.exists(), fresh.exists()) == (True, False, True)


class Prefect(BaseHTTPRequestHandler):
    """A server that knows one run at work, and keeps what it is told."""

    told: list[Any]

    def do_GET(self) -> None:
        self.answer({"id": "the-run", "state": {"type": "RUNNING"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if "state" in body:
            self.told.append((self.path, body["state"]["type"]))
        self.answer([] if self.path.endswith("/filter") else {})

    def answer(self, body: object) -> None:
        text = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


def test_prefect_is_told_of_a_run_that_died_with_its_worker(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Prefect.told = []
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "the-run")
    with subprocess.Popen(["sleep", "60"]) as process:
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

    assert Prefect.told == [("/api/flow_runs/the-run/set_state", "CRASHED")]
    assert list((project / RUNS).iterdir()) == []


def test_a_run_that_is_tried_again_does_not_end_itself(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "the-run")  # Prefect keeps its number
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # where nobody is: asking would be logged
    with subprocess.Popen(["sleep", "60"]) as process:
        make_checkout(project, process.pid)
        process.kill()
    remove_abandoned(project)

    assert "Prefect was not told" not in caplog.text
    assert list((project / RUNS).iterdir()) == []


def test_a_process_that_nobody_waited_for_is_gone() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        tag = owner(process.pid)
        assert not is_gone(tag)
        process.kill()
        wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE, 10, every=0.01)
        assert is_gone(tag)


def test_a_model_that_the_commit_calls_otherwise_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "models/mails").mkdir(parents=True)
    params = project / "models/mails/params.yaml"
    params.write_text("name: mails\n", encoding="utf-8")
    for command in (["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "mails"]):
        subprocess.run(["git", *command], cwd=project, check=True)
    root = make_checkout(project, os.getpid())
    params.write_text("name: post\n", encoding="utf-8")

    assert committed(root, project, "mails", "c0ffee") == Path("models/mails/params.yaml")
    with pytest.raises(BadParams, match=r"models/mails/params\.yaml is not in commit c0ffee, or has another name there"):
        committed(root, project, "post", "c0ffee")
    with pytest.raises(BadParams, match=r"params\.yaml is not in commit c0ffee"):
        committed(root, project, "", "c0ffee")
