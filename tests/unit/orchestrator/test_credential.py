"""The credential of the managed servers: made once, for its owner alone; a server that does not ask for it is replaced."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.core.process import owner
from flows.orchestrator import credential
from flows.orchestrator.server import end_open, running
from flows.orchestrator.services import STATE, health, read_state


def test_a_credential_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
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


def test_a_file_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    made = credential.make(tmp_path)
    (tmp_path / "prefect/auth").chmod(0o644)

    assert credential.read(tmp_path) == made
    assert (tmp_path / "prefect/auth").stat().st_mode & 0o777 == 0o600


def test_a_damaged_credential_is_made_anew(tmp_path: Path) -> None:
    made = credential.make(tmp_path)
    (tmp_path / "prefect/auth").write_bytes(b"\xff\n")

    assert credential.read(tmp_path) is None
    assert credential.make(tmp_path) != made


def test_a_disk_without_links_and_modes_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise PermissionError("operation not permitted")

    monkeypatch.setattr(os, "link", refuses)
    made = credential.make(tmp_path)
    (tmp_path / "prefect/auth").chmod(0o644)
    monkeypatch.setattr(Path, "chmod", refuses)

    assert credential.make(tmp_path) == credential.read(tmp_path) == made


# A supervisor by its command line, whose server answers everything with the status that it is given.
SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[3]))
        self.end_headers()

listening = HTTPServer(("127.0.0.1", 0), Answers)
print(listening.server_port, flush=True)
listening.serve_forever()
"""


@contextmanager
def server(home: Path, answers: int, **noted: object) -> Iterator["subprocess.Popen[str]"]:
    home.mkdir(parents=True)
    command = [sys.executable, "-c", SERVER, "flows.orchestrator.server", str(home), str(answers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        state = {"url": f"http://127.0.0.1:{process.stdout.readline().strip()}/api", "pid": process.pid, **noted}
        (home / "server.json").write_text(json.dumps(state), encoding="utf-8")
        yield process
        process.kill()


@pytest.mark.parametrize(
    ("answers", "noted", "stays"),
    [
        (200, {"guarded": True}, True),
        (200, {}, False),  # an earlier release's, which asks for nothing
        (401, {"guarded": True}, False),  # the credential was deleted, and made anew
        (500, {"guarded": True}, True),  # it is busy, or just starts
    ],
)
def test_a_server_that_asks_for_another_credential_or_none_is_ended(
    tmp_path: Path, answers: int, noted: dict[str, bool], stays: bool
) -> None:
    with server(tmp_path / "home/prefect", answers, **noted) as process:
        credential.make(tmp_path / "home")
        found = running(tmp_path / "home/prefect")
        end_open(tmp_path / "home/prefect")

        assert (process.poll() is None) is stays
        assert (found is not None) is (stays and answers == 200)


def test_services_of_an_earlier_release_are_told_as_such(tmp_path: Path) -> None:
    (tmp_path / STATE).parent.mkdir()
    noted = {"owner": owner(), "prefect": "http://127.0.0.1:9/api", "mlflow": "http://127.0.0.1:9", "workers": []}
    (tmp_path / STATE).write_text(json.dumps(noted), encoding="utf-8")
    state = read_state(tmp_path)

    assert state is not None
    assert health(state) == {"services": "of an earlier release, which answer every web page: `retune up` replaces them"}
