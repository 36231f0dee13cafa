"""`retune serve` as its clients meet it: over real HTTP, on a tiny version."""

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
from tests.support.project import BIN, ROOT, environment, retune
from tests.support.registered import make_shop

pytestmark = pytest.mark.slow

LIMITS = ("--max-body-kib", "64", "--max-rows", "100", "--max-characters", "500")
JSON = {"Content-Type": "application/json"}


@dataclass
class Server:
    """A running `retune serve`, the first line that it printed, and its port."""

    process: "subprocess.Popen[str]"
    said: str
    port: int

    def send(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = JSON, **more: Any) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers, **more)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text.strip() else None

    def ask(self, body: Any) -> tuple[int, Any]:
        return self.send("POST", "/invocations", body if isinstance(body, bytes) else json.dumps(body).encode())

    def raw(self, text: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=300) as connection:
            connection.sendall(text)
            found = b""
            while block := connection.recv(1 << 16):
                found += block
            return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tickets: pd.DataFrame) -> Path:
    folder = tmp_path_factory.mktemp("project")
    make_shop(folder, tiny_base, tickets)
    return folder


@contextlib.contextmanager
def serving(project: Path, temporary: Path) -> Iterator[Server]:
    """Serve the champion, with `temporary` as the place of temporary files."""
    temporary.mkdir()
    surroundings = environment(project, PYTHONPATH=str(ROOT), TMPDIR=str(temporary))
    command = [str(BIN / "retune"), "serve", "tickets@champion", "--port", "0", *LIMITS]
    pipes = {"stdout": subprocess.PIPE, "stderr": (project / "said.txt").open("w")}
    process = subprocess.Popen(command, cwd=project, env=surroundings, text=True, **pipes)  # type: ignore[call-overload]
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", said)
        assert found, (project / "said.txt").read_text()
        yield Server(process, said, int(found[1]))
    finally:
        process.kill()
        process.communicate()
        pipes["stderr"].close()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[Server]:
    with serving(project, project / "serving") as running:
        yield running


def test_it_says_which_version_it_serves_and_answers_as_that_was_evaluated(server: Server, project: Path, tickets: pd.DataFrame) -> None:
    evaluated = Predictions.read(project / "workspace0/reports/evaluation/predictions/candidate.parquet")
    status, found = server.ask({"dataframe_split": {"columns": ["text"], "data": [[text] for text in tickets["text"].head(60)]}})
    about = server.send("GET", "/version")[1]
    version = MlflowClient(f"sqlite:///{project / 'var/mlflow.db'}").get_model_version("tickets", "1")

    assert status == 200
    answered = [[one["probabilities"][label] for label in evaluated.labels] for one in found["predictions"]]
    assert np.allclose(answered, evaluated.probabilities, atol=1e-6)  # float32, another batch
    assert [one["label"] for one in found["predictions"]] == evaluated.predicted.tolist()
    assert about == {
        "model": "tickets",
        "version": 1,
        "alias": "champion",
        "uri": "models:/tickets/1",
        "package": version.tags["retune.package"],
    }
    assert server.said.startswith("models:/tickets/1 is served on http://127.0.0.1:")
    assert [server.send("GET", path)[0] for path in ("/ping", "/health")] == [200, 200]


def test_todays_code_is_out_of_its_reach(server: Server, project: Path) -> None:
    process = psutil.Process(server.process.pid)

    assert Path(process.cwd()).parent == project / "serving"
    assert str(ROOT) not in process.environ().get("PYTHONPATH", "")
    assert {"-P", "-B"} <= set(process.cmdline())
    assert process.environ()["PYTHONSAFEPATH"] == "1"


def test_what_the_gate_calls_malformed_is_refused_in_one_shape(server: Server) -> None:
    answers = {name: server.ask(body) for name, body in malformed_requests(TEXT).items()}

    assert {status for status, _ in answers.values()} == {400}
    assert all(set(error) == {"error_code", "message"} for _, error in answers.values())


HEAD = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_the_limits_hold_over_http(server: Server) -> None:
    many, long = {"inputs": {"text": ["a"] * 101}}, {"inputs": {"text": ["a" * 501]}}
    chunks = iter([b" " * 60_000] * 3)
    found = [
        server.ask(many),
        server.ask(long),
        server.ask(b" " * 64 * 1024 + b"{}"),
        server.send("POST", "/invocations", chunks, encode_chunked=True),  # type: ignore[arg-type]
    ]
    expecting = server.raw(HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 9000000000\r\n\r\n")

    assert [(status, error["error_code"]) for status, error in found] == [(413, "REQUEST_TOO_LARGE")] * 4
    assert expecting.startswith(b"HTTP/1.1 413 ")  # and no byte of it was asked for
    assert server.ask({"inputs": {"text": ["a"] * 100}})[0] == 200


NO_HTTP = {
    "no request": b"GARBAGE\r\n\r\n",
    "no chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "an endless path": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("text", NO_HTTP.values(), ids=NO_HTTP.keys())
def test_what_is_no_http_is_refused_as_json_too(server: Server, text: bytes) -> None:
    head, _, body = server.raw(text).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body) == {"error_code": "BAD_REQUEST", "message": "Invalid HTTP request received."}
    assert server.send("GET", "/ping")[0] == 200


def test_unknown_routes_and_wrong_methods_are_told(server: Server) -> None:
    assert server.send("GET", "/docs")[1]["error_code"] == "ENDPOINT_NOT_FOUND"
    assert server.send("PUT", "/invocations")[1]["error_code"] == "METHOD_NOT_ALLOWED"
    assert server.send("POST", "/invocations", b"text\na\n", {"Content-Type": "text/csv"})[1]["error_code"] == "UNSUPPORTED_MEDIA_TYPE"


def test_many_at_once_are_answered_each_with_its_own(server: Server) -> None:
    texts = [f"invoice {number} router" for number in range(24)]
    found: dict[str, Any] = {}
    threads = [threading.Thread(target=lambda text=text: found.update({text: server.ask({"inputs": {"text": text}})})) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = {text: server.ask({"inputs": {"text": text}}) for text in texts}

    assert {status for status, _ in found.values()} == {200}
    assert found == alone


def test_a_port_in_use_and_an_address_of_others_are_one_clear_error(server: Server, project: Path) -> None:
    taken = retune(project, "serve", "tickets@champion", "--port", str(server.port), PYTHONPATH=str(ROOT))

    assert taken.returncode == Unavailable.exit_code
    assert taken.stderr == f"error: port {server.port} of 127.0.0.1 is in use; name another: --port, or 0 for any free one\n"
    with pytest.raises(BadParams, match=r"cannot listen on port 0 of 192\.0\.2\.1"):
        listen("192.0.2.1", 0)
    with listen("::1", 0) as other:
        assert other.getsockname()[0] == "::1"


def test_a_request_that_is_inside_when_the_server_is_told_to_end_is_answered(project: Path) -> None:
    body = json.dumps({"inputs": {"text": ["a"] * 50}}).encode()
    with serving(project, project / "ending") as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=300) as inside:
            inside.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body[:20])
            server.send("GET", "/ping")  # by now the other is being read
            server.process.send_signal(signal.SIGTERM)
            while True:
                try:
                    socket.create_connection(("127.0.0.1", server.port), timeout=300).close()
                    time.sleep(0.05)  # a flood of connections would take the place of the one that is read
                except ConnectionError:  # nobody new is let in
                    break
            inside.sendall(body[20:])
            answer = http.client.HTTPResponse(inside)
            answer.begin()
            found = json.loads(answer.read())
        code = server.process.wait(300)

    assert (answer.status, len(found.get("predictions", [])), code) == (200, 50, 0), found
    assert (project / "said.txt").read_text() == ""
    assert list((project / "ending").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGHUP, marks=pytest.mark.exhaustive)])
def test_it_ends_without_a_word_while_the_version_is_loaded(project: Path, number: signal.Signals) -> None:
    temporary = project / f"loading{number}"
    temporary.mkdir()
    surroundings = environment(project, PYTHONPATH=str(ROOT), TMPDIR=str(temporary))
    command = [str(BIN / "retune"), "serve", "tickets/1", "--port", "0"]
    for _ in range(5):  # on a busy machine it may be served before this test sees that it is being loaded
        with subprocess.Popen(command, cwd=project, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            while "scoring_server" not in " ".join(psutil.Process(process.pid).cmdline()):
                assert process.poll() is None
                os.sched_yield()
            process.send_signal(number)
            said = process.communicate(timeout=300)
        assert process.returncode == 0
        assert list(temporary.iterdir()) == []
        if not said[0]:
            break

    assert said == (b"", b"")
