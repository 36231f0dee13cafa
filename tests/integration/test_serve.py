"""`retune serve` over real HTTP, with a tiny version."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient

from components.artifacts.predictions import Predictions
from components.core.errors import BadParams, Unavailable
from components.mlflow_store.registry.servability_probe import TEXT, malformed_requests
from components.serving.http.start import listen
from tests.support.project import BIN, ROOT, environment, retune, started
from tests.support.registered import make_shop

pytestmark = pytest.mark.slow

LIMITS = ("--max-body-kib", "64", "--max-rows", "100", "--max-characters", "500")
JSON = {"Content-Type": "application/json"}


@dataclass
class Server:
    """A running `retune serve`, the first line that it printed, and its port."""

    process: "subprocess.Popen[str]"
    first_line: str
    port: int

    def send(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = JSON, **more: Any) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers, **more)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text.strip() else None

    def post(self, body: Any) -> tuple[int, Any]:
        return self.send("POST", "/invocations", body if isinstance(body, bytes) else json.dumps(body).encode())

    def raw(self, text: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=300) as connection:
            connection.sendall(text)
            data = b""
            while block := connection.recv(1 << 16):
                data += block
            return data


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Path:
    folder = tmp_path_factory.mktemp("project")
    make_shop(folder, tiny_base, tickets)
    return folder


@contextlib.contextmanager
def serving(project: Path, temporary: Path) -> Iterator[Server]:
    """Serve the champion, with `temporary` as the folder for temporary files."""
    temporary.mkdir()
    surroundings = environment(project, PYTHONPATH=str(ROOT), TMPDIR=str(temporary))
    command = [str(BIN / "retune"), "serve", "tickets@champion", "--port", "0", *LIMITS]
    pipes = {"stdout": subprocess.PIPE, "stderr": (project / "serve.log").open("w")}
    process = subprocess.Popen(command, cwd=project, env=surroundings, text=True, **pipes)  # type: ignore[call-overload]
    try:
        assert process.stdout is not None
        first_line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:(\d+)", first_line)
        assert address, (project / "serve.log").read_text()
        yield Server(process, first_line, int(address[1]))
    finally:
        process.kill()
        process.communicate()
        pipes["stderr"].close()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[Server]:
    with serving(project, project / "serving") as running:
        yield running


def test_server_reports_its_version_and_answers_as_evaluated(server: Server, project: Path, tickets: pd.DataFrame) -> None:
    evaluated = Predictions.read(project / "workspace0/reports/evaluation/predictions/candidate.parquet")
    status, answer = server.post({"dataframe_split": {"columns": ["text"], "data": [[text] for text in tickets["text"].head(60)]}})
    about = server.send("GET", "/version")[1]
    version = MlflowClient(f"sqlite:///{project / 'var/mlflow.db'}").get_model_version("tickets", "1")

    assert status == 200
    answered = [[row["probabilities"][label] for label in evaluated.labels] for row in answer["predictions"]]
    assert np.allclose(answered, evaluated.probabilities, atol=1e-6)  # float32, another batch
    assert [row["label"] for row in answer["predictions"]] == evaluated.predicted.tolist()
    assert about == {
        "model": "tickets",
        "version": 1,
        "alias": "champion",
        "uri": "models:/tickets/1",
        "package": version.tags["retune.package"],
    }
    assert server.first_line.startswith("serving models:/tickets/1 on http://127.0.0.1:")
    assert [server.send("GET", path)[0] for path in ("/ping", "/health")] == [200, 200]


def test_todays_code_cannot_be_imported(server: Server, project: Path) -> None:
    process = psutil.Process(server.process.pid)

    assert Path(process.cwd()).parent == project / "serving"
    assert str(ROOT) not in process.environ().get("PYTHONPATH", "")
    assert {"-P", "-B"} <= set(process.cmdline())
    assert process.environ()["PYTHONSAFEPATH"] == "1"


def test_malformed_requests_get_one_error_format(server: Server) -> None:
    answers = {name: server.post(body) for name, body in malformed_requests(TEXT).items()}

    assert {status for status, _ in answers.values()} == {400}
    assert all(set(error) == {"error_code", "message"} for _, error in answers.values())


HEAD = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_limits_are_enforced_over_http(server: Server) -> None:
    many, long = {"inputs": {"text": ["a"] * 101}}, {"inputs": {"text": ["a" * 501]}}
    chunks = iter([b" " * 60_000] * 3)
    responses = [
        server.post(many),
        server.post(long),
        server.post(b" " * 64 * 1024 + b"{}"),
        server.send("POST", "/invocations", chunks, encode_chunked=True),  # type: ignore[arg-type]
    ]
    expecting = server.raw(HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 9000000000\r\n\r\n")

    assert [(status, error["error_code"]) for status, error in responses] == [(413, "REQUEST_TOO_LARGE")] * 4
    assert expecting.startswith(b"HTTP/1.1 413 ")  # without a 100 Continue
    assert server.post({"inputs": {"text": ["a"] * 100}})[0] == 200


INVALID_HTTP = {
    "no request": b"GARBAGE\r\n\r\n",
    "no chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "an endless path": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("text", INVALID_HTTP.values(), ids=INVALID_HTTP.keys())
def test_invalid_http_is_rejected_as_json(server: Server, text: bytes) -> None:
    head, _, body = server.raw(text).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body) == {"error_code": "BAD_REQUEST", "message": "Invalid HTTP request received."}
    assert server.send("GET", "/ping")[0] == 200


def test_unknown_routes_and_wrong_methods_are_rejected(server: Server) -> None:
    assert server.send("GET", "/docs")[1]["error_code"] == "ENDPOINT_NOT_FOUND"
    assert server.send("PUT", "/invocations")[1]["error_code"] == "METHOD_NOT_ALLOWED"
    assert server.send("POST", "/invocations", b"text\na\n", {"Content-Type": "text/csv"})[1]["error_code"] == "UNSUPPORTED_MEDIA_TYPE"


def test_concurrent_requests_get_their_own_answers(server: Server) -> None:
    texts = [f"invoice {number} router" for number in range(24)]
    concurrent: dict[str, Any] = {}
    threads = [
        threading.Thread(target=lambda text=text: concurrent.update({text: server.post({"inputs": {"text": text}})})) for text in texts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sequential = {text: server.post({"inputs": {"text": text}}) for text in texts}

    assert {status for status, _ in concurrent.values()} == {200}
    assert concurrent == sequential


def test_unusable_port_or_address_is_rejected(server: Server, project: Path) -> None:
    taken = retune(project, "serve", "tickets@champion", "--port", str(server.port), PYTHONPATH=str(ROOT))

    assert taken.returncode == Unavailable.exit_code
    assert taken.stderr == f"error: port {server.port} of 127.0.0.1 is in use; choose another with --port, or 0 for any free one\n"
    with pytest.raises(BadParams, match=r"cannot listen on port 0 of 192\.0\.2\.1"):
        listen("192.0.2.1", 0)
    with listen("::1", 0) as other:
        assert other.getsockname()[0] == "::1"


def test_active_request_is_answered_after_sigterm(project: Path) -> None:
    body = json.dumps({"inputs": {"text": ["a"] * 50}}).encode()
    with serving(project, project / "ending") as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=300) as inside:
            inside.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body[:20])
            server.send("GET", "/ping")  # by now the server reads the other request
            server.process.send_signal(signal.SIGTERM)
            while True:
                try:
                    socket.create_connection(("127.0.0.1", server.port), timeout=300).close()
                    time.sleep(0.05)  # too many connections would displace the one that is being read
                except ConnectionError:  # new connections are refused
                    break
            inside.sendall(body[20:])
            answer = http.client.HTTPResponse(inside)
            answer.begin()
            body = json.loads(answer.read())
        code = server.process.wait(300)

    assert (answer.status, len(body.get("predictions", [])), code) == (200, 50, 0), body
    assert (project / "serve.log").read_text() == ""
    assert list((project / "ending").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGHUP, marks=pytest.mark.exhaustive)])
def test_signal_while_loading_exits_silently(project: Path, number: signal.Signals) -> None:
    temporary = project / f"loading{number}"
    temporary.mkdir()
    surroundings = environment(project, PYTHONPATH=str(ROOT), TMPDIR=str(temporary))
    command = [str(BIN / "retune"), "serve", "tickets/1", "--port", "0"]
    for _ in range(5):  # on a busy machine loading may end before the signal
        with started(command, cwd=project, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            while "components/serving/http" not in " ".join(psutil.Process(process.pid).cmdline()):
                assert process.poll() is None
                os.sched_yield()
            process.send_signal(number)
            output = process.communicate(timeout=300)
        assert process.returncode == 0
        assert list(temporary.iterdir()) == []
        if not output[0]:
            break

    assert output == ("", "")
