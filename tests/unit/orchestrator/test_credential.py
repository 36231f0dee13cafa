"""The credential of the managed servers is created once, private, and servers without it are replaced."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.core.locks import LockTimeout, lock
from components.core.process import owner
from flows.orchestrator import credential
from flows.orchestrator.server import end_outdated, running
from flows.orchestrator.services import STATE, health, read_state
from tests.support.project import started


def test_credential_is_created_once_and_private(tmp_path: Path) -> None:
    os.umask(before := os.umask(0))
    try:
        os.umask(0)
        made = credential.make(tmp_path)
    finally:
        os.umask(before)

    assert credential.make(tmp_path) == credential.read(tmp_path) == made
    assert made.startswith("retune:")
    assert len(made) > 40
    assert (tmp_path / "prefect/auth").stat().st_mode & 0o777 == 0o600


def test_lock_of_a_hanging_process_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential, "_LOCK_SECONDS", 0.0)
    with lock(tmp_path / "prefect/auth.lock"), pytest.raises(LockTimeout, match=r"auth\.lock has been held by another process"):
        credential.make(tmp_path)


def test_readable_credential_is_made_private(tmp_path: Path) -> None:
    made = credential.make(tmp_path)
    (tmp_path / "prefect/auth").chmod(0o644)

    assert credential.read(tmp_path) == made
    assert (tmp_path / "prefect/auth").stat().st_mode & 0o777 == 0o600


def test_damaged_credential_is_recreated(tmp_path: Path) -> None:
    made = credential.make(tmp_path)
    (tmp_path / "prefect/auth").write_bytes(b"\xff\n")

    assert credential.read(tmp_path) is None
    assert credential.make(tmp_path) != made


def test_file_system_without_links_and_modes_is_supported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError("operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    made = credential.make(tmp_path)
    (tmp_path / "prefect/auth").chmod(0o644)
    monkeypatch.setattr(Path, "chmod", fail)

    assert credential.make(tmp_path) == credential.read(tmp_path) == made


# A process with the supervisor's command line, whose server answers with the given status.
SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[3]))
        self.end_headers()

listening = HTTPServer(("127.0.0.1", 0), Handler)
print(listening.server_port, flush=True)
listening.serve_forever()
"""


@contextmanager
def server(home: Path, status: int, **fields: object) -> Iterator["subprocess.Popen[str]"]:
    home.mkdir(parents=True)
    command = [sys.executable, "-c", SERVER, "flows.orchestrator.server", str(home), str(status)]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        state = {"url": f"http://127.0.0.1:{process.stdout.readline().strip()}/api", "pid": process.pid, **fields}
        (home / "server.json").write_text(json.dumps(state), encoding="utf-8")
        yield process
        process.kill()


@pytest.mark.parametrize(
    ("status", "fields", "stays"),
    [
        (200, {"guarded": True}, True),
        (200, {}, False),  # of an earlier release, without access control
        (401, {"guarded": True}, False),  # the credential was deleted and recreated
        (500, {"guarded": True}, True),  # it is busy or starting
    ],
)
def test_server_with_other_or_no_credential_is_ended(tmp_path: Path, status: int, fields: dict[str, bool], stays: bool) -> None:
    with server(tmp_path / "home/prefect", status, **fields) as process:
        credential.make(tmp_path / "home")
        url = running(tmp_path / "home/prefect")
        end_outdated(tmp_path / "home/prefect")

        assert (process.poll() is None) is stays
        assert (url is not None) is (stays and status == 200)


def test_services_of_earlier_release_are_reported(tmp_path: Path) -> None:
    (tmp_path / STATE).parent.mkdir()
    fields = {"owner": owner(), "prefect": "http://127.0.0.1:9/api", "mlflow": "http://127.0.0.1:9", "workers": []}
    (tmp_path / STATE).write_text(json.dumps(fields), encoding="utf-8")
    state = read_state(tmp_path)

    assert state is not None
    assert health(state) == {"services": "started by an earlier release, without access control: `retune up` replaces them"}
