"""Serve a registered version with MLflow's own scoring server and query it over HTTP, as its users do.

Starts `mlflow models serve` in a new process outside the repository, and ends it. The server has no authentication, so it listens on
a socket in a private folder, which no web page and no other account can reach.
"""

import http.client
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.artifacts.served_answers import ServedAnswer, ServedAnswers
from components.core import process
from components.core.errors import Cancelled
from components.core.ports import HOST
from components.core.temporary import temporary
from components.mlflow_store.registry.verify import checked_package, registered_version
from components.mlflow_store.registry.worker_client import PYTHON, isolated_environment, last_line
from components.model.base_resolver import LACKING

log = logging.getLogger(__name__)

SECONDS = 180
ROWS_PER_REQUEST = 50
SOCKET = "http"  # in the server's folder
LONGEST = 95  # bytes of the socket folder's path; a socket's path may have about 100

# The documented request formats; each is used for a part of the rows.
FORMS: Mapping[str, Any] = {
    "dataframe_split": lambda rows: {"columns": list(rows.columns), "data": rows.to_numpy().tolist()},
    "dataframe_records": lambda rows: rows.to_dict("records"),
    "inputs": lambda rows: {name: rows[name].tolist() for name in rows.columns},
}
TEXT = {"text": "a text"}
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
OUT_OF_MEMORY = ("MemoryError", "Cannot allocate memory", f"Return code = {-signal.SIGKILL}")  # the last is MLflow's message
_ERROR = re.compile(r"([\w.]*(Error|Exception)|components\.(?:core\.)?errors\.\w+)\b")  # the last line of a traceback


def malformed_requests(example: Mapping[str, str]) -> dict[str, Any]:
    """Return malformed requests by name; `example` is a valid row."""
    name, good = next(iter(example)), dict(example)
    return {
        "no JSON": b"{",
        "nothing": b"",
        "no known key": {"texts": ["a text"]},
        "another column": {"dataframe_records": [{"another": "a text"}]},
        "a number instead of text": {"dataframe_records": [good | {name: 7}]},
        "no text": {"dataframe_records": [good | {name: None}]},
        "one bad row among good ones": {"dataframe_records": [good, good | {name: None}]},
        "a list instead of text": {"inputs": {column: [["a", "text"] if column == name else text] for column, text in good.items()}},
    }


class _ServerFailed(Exception):
    """The server did not start, or stopped; `outside` if the version is not the cause."""

    def __init__(self, reason: str, outside: bool) -> None:
        super().__init__(reason)
        self.outside = outside


def sample_evenly(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return `count` of the `rows`, evenly spaced; all of them if `count` is 0 or exceeds their number."""
    if count == 0 or count >= len(rows):
        return rows
    return rows.iloc[[int(index * len(rows) / count) for index in range(count)]]


def probe_server(
    uri: str, name: str, number: int, rows: pd.DataFrame, deadline: float = SECONDS, example: Mapping[str, str] = TEXT
) -> ServedAnswers:
    """Serve version `number` of `name`, send it `rows` and malformed requests, and return the answers.

    `rows` have an id and the columns of `example`, which is a valid row.

    `deadline` in seconds applies to the start, and again to all requests. A server that does not start, is killed or does not answer in
    time is reported in the result's `fault`.

    Raises:
        NotFound: the version does not exist.
        BadModel: the package differs from the registered one; none of its code was run.
        Cancelled: `process.end_children` was called.
    """
    version = registered_version(uri, name, number)
    checked_package(uri, version)
    try:
        with _server(uri, version.uri, deadline) as (address, seconds):
            until = time.monotonic() + deadline
            served = _probe(version.uri, address, rows, example, until)
            if time.monotonic() >= until and (served.refused or None in served.malformed.values()):
                raise _ServerFailed("the scoring server did not answer all requests in time (gates.servability.max_seconds)", outside=True)
    except _ServerFailed as error:
        log.warning("%s cannot be served: %s", version.uri, error)
        return ServedAnswers(version=version.uri, asked=len(rows), fault=str(error), outside=error.outside)
    log.info("%s was served after %.1f s and answered %d of %d rows", version.uri, seconds, len(served.answers), len(rows))
    return served.model_copy(update={"seconds": seconds})


@contextmanager
def _server(uri: str, model: str, deadline: float) -> Iterator[tuple[str, float]]:
    """Run the server for the block; yield its socket and the seconds that its start took."""
    start = time.monotonic()
    with temporary(LONGEST) as folder:
        address = f"{folder}/{SOCKET}"
        child = _start(uri, model, address, folder)
        try:
            if (fault := _wait(child, model, address, folder, start + deadline)) is not None:
                raise fault
            yield address, time.monotonic() - start
            if child not in process.CHILDREN:
                raise Cancelled(f"serving {model} was cancelled; run again to continue")
            if (failure := _failure_after(child, address, folder / "server.log")) is not None and failure.outside:
                raise failure
        finally:
            process.end_group(child)
            process.CHILDREN.discard(child)


def _start(uri: str, model: str, address: str, folder: Path) -> "subprocess.Popen[str]":
    arguments = ["-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local", "--workers", "1"]
    # The server is a child of that process, so -P and -B are passed on as variables; UVICORN_UDS is uvicorn's --uds.
    isolated = {"PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1", "UVICORN_UDS": address}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # MLflow runs uvicorn by name
    with (folder / "server.log").open("wb") as output:
        child = subprocess.Popen(
            process.tied_command([*PYTHON, *arguments]),
            cwd=folder,
            env={**isolated_environment(uri, folder), **isolated, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
    process.CHILDREN.add(child)
    return child


def _wait(child: "subprocess.Popen[str]", model: str, address: str, folder: Path, deadline: float) -> _ServerFailed | None:
    """Return None once the server is healthy, or the reason why it is not."""
    while time.monotonic() < deadline:
        if child not in process.CHILDREN:
            raise Cancelled(f"serving {model} was cancelled; run again to continue")
        if child.poll() is not None:
            return _failure(child.returncode, folder / "server.log")
        try:
            if _send(address, "GET", "/ping", b"", 2)[0] == http.client.OK:
                return None
        except (OSError, http.client.HTTPException) as error:
            log.debug("%s is not served yet: %s", model, error)
        time.sleep(0.1)
    return _ServerFailed(f"the scoring server was not ready in time; its log: {last_line(folder / 'server.log') or 'empty'}", outside=True)


def _failure_after(child: "subprocess.Popen[str]", address: str, output: Path) -> _ServerFailed | None:
    """Return why the server stopped after the requests; None if it is still running."""
    try:
        _send(address, "GET", "/ping", b"", 10)
        return None
    except (OSError, http.client.HTTPException):
        with suppress(subprocess.TimeoutExpired):
            return _failure(child.wait(10), output)
    return None


def _failure(code: int, output: Path) -> _ServerFailed:
    """Return why the server's process ended by itself."""
    text = output.read_text(encoding="utf-8", errors="replace")
    if code in KILLED or any(sign in text for sign in OUT_OF_MEMORY):
        return _ServerFailed("the scoring server was killed: out of memory, or manually", outside=True)
    errors = [line for line in text.splitlines() if _ERROR.match(line) and "returned non zero" not in line]  # MLflow's own last line
    reason = (errors or [last_line(output)])[-1].strip()
    return _ServerFailed(f"the scoring server ended with {code}: {reason}", outside=LACKING in reason)


def _probe(model: str, address: str | int, rows: pd.DataFrame, example: Mapping[str, str], until: float) -> ServedAnswers:
    answers: list[ServedAnswer] = []
    refused: list[str] = []
    for form, part in _requests(rows):
        accepted, fault = _answers(address, form, part, list(example), until)
        answers += accepted
        refused += [f"{form} with {len(part)} rows: {fault}"] if fault else []
    statuses = {name: _status(address, body, until) for name, body in malformed_requests(example).items()}
    last = rows.iloc[:1]
    if fault := _answers(address, "dataframe_split", last, list(example), until)[1] if len(last) else None:
        refused.append(f"a valid request after malformed ones: {fault}")
    return ServedAnswers(version=model, asked=len(rows), answers=tuple(answers), refused=tuple(refused), malformed=statuses)


def _requests(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield every row once, in requests of at most 50 rows that cycle through the documented formats."""
    count = max(len(FORMS), -(-len(rows) // ROWS_PER_REQUEST))
    for number, indexes in enumerate(np.array_split(np.arange(len(rows)), count)):
        if len(indexes):
            yield list(FORMS)[number % len(FORMS)], rows.iloc[indexes]


def _answers(address: str | int, form: str, rows: pd.DataFrame, inputs: list[str], until: float) -> tuple[list[ServedAnswer], str | None]:
    """Send `rows` in one request; return the answers and None, or no answers and the fault."""
    body = json.dumps({form: FORMS[form](rows[inputs])}).encode()
    try:
        status, text = _send(address, "POST", "/invocations", body, max(until - time.monotonic(), 0.1))
    except (OSError, http.client.HTTPException) as error:
        return [], f"no answer ({error or type(error).__name__})"
    if status != http.client.OK:
        return [], f"status {status}, {text[:200].decode(errors='replace')}"
    try:
        records = json.loads(text)["predictions"]
        answers = [
            ServedAnswer(id=str(name), label=record["answer"])
            if "answer" in record
            else ServedAnswer(id=str(name), label=record["label"], probabilities=record["probabilities"])
            for name, record in zip(rows["id"], records, strict=True)
        ]
    except (ValueError, KeyError, TypeError) as error:
        return [], f"status 200, but not one label with probabilities per row ({type(error).__name__})"
    return answers, None


def _status(address: str | int, body: Any, until: float) -> int | None:
    """Return the status of a malformed request; None if the connection broke."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        return _send(address, "POST", "/invocations", data, max(until - time.monotonic(), 0.1))[0]
    except (OSError, http.client.HTTPException):
        return None


def _send(address: str | int, method: str, path: str, body: bytes, seconds: float) -> tuple[int, bytes]:
    """Send one request to a socket path or a port, bypassing proxies; return status and body."""
    connection = http.client.HTTPConnection(HOST, None if isinstance(address, str) else address, timeout=seconds)
    try:
        if isinstance(address, str):
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(seconds)
            connection.sock.connect(address)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
