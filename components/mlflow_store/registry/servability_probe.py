"""A registered version behind MLflow's own scoring server, asked over HTTP as its users ask it.

Starts `mlflow models serve` in a fresh process outside the repository, and ends it. That server asks nobody who they are, so it listens
on a socket in a folder of this account alone, where no web page and no other account reaches it.
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
from components.mlflow_store.registry.verify import inspected, known_version
from components.mlflow_store.registry.worker_client import PYTHON, environment, last_line
from components.model.base_resolver import LACKING

log = logging.getLogger(__name__)

SECONDS = 180
ROWS_A_REQUEST = 50
SOCKET = "http"  # below the server's own folder
LONGEST = 95  # bytes of the path of the socket's folder: about 100 are allowed for the socket

# The documented shapes of a request; each gets its share of the rows.
FORMS: Mapping[str, Any] = {
    "dataframe_split": lambda rows: {"columns": list(rows.columns), "data": rows.to_numpy().tolist()},
    "dataframe_records": lambda rows: rows.to_dict("records"),
    "inputs": lambda rows: {name: rows[name].tolist() for name in rows.columns},
}
TEXT = {"text": "a text"}
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
LACK = ("MemoryError", "Cannot allocate memory", f"Return code = {-signal.SIGKILL}")  # the last is MLflow's word for its server's end
_ERROR = re.compile(r"([\w.]*(Error|Exception)|components\.(?:core\.)?errors\.\w+)\b")  # the last line of a traceback


def malformed_requests(example: Mapping[str, str]) -> dict[str, Any]:
    """Return what is no request, by name; `example` is a row that would be one."""
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


class _NotUp(Exception):
    """The server did not come up, or did not stay; `outside` when the reason is not the version's."""

    def __init__(self, reason: str, outside: bool) -> None:
        super().__init__(reason)
        self.outside = outside


def evenly(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Return `count` of the `rows`, evenly spread in their order; all of them for 0, or where there are no more."""
    if count == 0 or count >= len(rows):
        return rows
    return rows.iloc[[int(place * len(rows) / count) for place in range(count)]]


def serve_and_ask(
    uri: str, name: str, number: int, rows: pd.DataFrame, deadline: float = SECONDS, example: Mapping[str, str] = TEXT
) -> ServedAnswers:
    """Serve version `number` of `name`, ask it `rows` and what is no request, and say what came back.

    `rows` have an id and the columns of `example`, which is a row that can be asked.

    `deadline` is in seconds, for the start and again for all requests. A server that does not come up, is killed, or does not answer in
    time is a fault that is returned.

    Raises:
        NotThere: no such version.
        BadModel: its package is not what was registered; nothing of it was run.
        Cancelled: `process.end_children` was called meanwhile.
    """
    version = known_version(uri, name, number)
    inspected(uri, version)
    try:
        with _server(uri, version.uri, deadline) as (where, seconds):
            until = time.monotonic() + deadline
            served = _asked(version.uri, where, rows, example, until)
            if time.monotonic() >= until and (served.refused or None in served.malformed.values()):
                raise _NotUp("the scoring server did not answer all requests in time (gates.servability.max_seconds)", outside=True)
    except _NotUp as error:
        log.warning("%s is not served: %s", version.uri, error)
        return ServedAnswers(version=version.uri, asked=len(rows), fault=str(error), outside=error.outside)
    log.info("%s was served after %.1f s and answered %d of %d rows", version.uri, seconds, len(served.answers), len(rows))
    return served.model_copy(update={"seconds": seconds})


@contextmanager
def _server(uri: str, model: str, deadline: float) -> Iterator[tuple[str, float]]:
    """Run the server for the block; give its socket and the seconds that it took to come up."""
    start = time.monotonic()
    with temporary(LONGEST) as folder:
        where = f"{folder}/{SOCKET}"
        child = _start(uri, model, where, folder)
        try:
            if (fault := _wait(child, model, where, folder, start + deadline)) is not None:
                raise fault
            yield where, time.monotonic() - start
            if child not in process.CHILDREN:
                raise Cancelled(f"serving {model} was cancelled; run again to go on where it stopped")
            if (ended := _ends(child, where, folder / "said.txt")) is not None and ended.outside:
                raise ended
        finally:
            process.end_group(child)
            process.CHILDREN.discard(child)


def _start(uri: str, model: str, where: str, folder: Path) -> "subprocess.Popen[str]":
    served = ["-m", "mlflow", "models", "serve", "-m", model, "--env-manager", "local", "--workers", "1"]
    # The server is a process of that process: what -P and -B say to the one, these say to the other. The last is uvicorn's --uds.
    isolated = {"PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1", "UVICORN_UDS": where}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # MLflow calls uvicorn by its name
    with (folder / "said.txt").open("wb") as said:
        child = subprocess.Popen(
            process.tied_command([*PYTHON, *served]),
            cwd=folder,
            env={**environment(uri, folder), **isolated, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            text=True,
            start_new_session=True,
        )
    process.CHILDREN.add(child)
    return child


def _wait(child: "subprocess.Popen[str]", model: str, where: str, folder: Path, deadline: float) -> _NotUp | None:
    """Return None once the server is healthy, or why it is not."""
    while time.monotonic() < deadline:
        if child not in process.CHILDREN:
            raise Cancelled(f"serving {model} was cancelled; run again to go on where it stopped")
        if child.poll() is not None:
            return _ended(child.returncode, folder / "said.txt")
        try:
            if _send(where, "GET", "/ping", b"", 2)[0] == http.client.OK:
                return None
        except (OSError, http.client.HTTPException) as error:
            log.debug("%s is not served yet: %s", model, error)  # until the deadline, which says what the server said
        time.sleep(0.1)
    return _NotUp(f"the scoring server was not ready in time; it said: {last_line(folder / 'said.txt') or 'nothing'}", outside=True)


def _ends(child: "subprocess.Popen[str]", where: str, said: Path) -> _NotUp | None:
    """Return why the server is gone after it was asked; None where it is still there."""
    try:
        _send(where, "GET", "/ping", b"", 10)
        return None
    except (OSError, http.client.HTTPException):
        with suppress(subprocess.TimeoutExpired):
            return _ended(child.wait(10), said)
    return None


def _ended(code: int, said: Path) -> _NotUp:
    """Say why the server's process ended by itself."""
    text = said.read_text(encoding="utf-8", errors="replace")
    if code in KILLED or any(sign in text for sign in LACK):
        return _NotUp("the scoring server was killed, for lack of memory or by hand", outside=True)
    errors = [line for line in text.splitlines() if _ERROR.match(line) and "returned non zero" not in line]  # what MLflow adds to it
    reason = (errors or [last_line(said)])[-1].strip()
    return _NotUp(f"the scoring server ended with {code}: {reason}", outside=LACKING in reason)


def _asked(model: str, where: str | int, rows: pd.DataFrame, example: Mapping[str, str], until: float) -> ServedAnswers:
    answers: list[ServedAnswer] = []
    refused: list[str] = []
    for form, part in _requests(rows):
        found, fault = _answers(where, form, part, list(example), until)
        answers += found
        refused += [f"{form} with {len(part)} rows: {fault}"] if fault else []
    statuses = {name: _status(where, body, until) for name, body in malformed_requests(example).items()}
    last = rows.iloc[:1]
    if fault := _answers(where, "dataframe_split", last, list(example), until)[1] if len(last) else None:
        refused.append(f"a good request after malformed ones: {fault}")
    return ServedAnswers(version=model, asked=len(rows), answers=tuple(answers), refused=tuple(refused), malformed=statuses)


def _requests(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Give every row once, in requests of at most 50 rows and in every documented form in turn."""
    count = max(len(FORMS), -(-len(rows) // ROWS_A_REQUEST))
    for number, places in enumerate(np.array_split(np.arange(len(rows)), count)):
        if len(places):
            yield list(FORMS)[number % len(FORMS)], rows.iloc[places]


def _answers(where: str | int, form: str, rows: pd.DataFrame, inputs: list[str], until: float) -> tuple[list[ServedAnswer], str | None]:
    """Return the answers to `rows` in one request, or none of them and what came back instead."""
    body = json.dumps({form: FORMS[form](rows[inputs])}).encode()
    try:
        status, text = _send(where, "POST", "/invocations", body, max(until - time.monotonic(), 0.1))
    except (OSError, http.client.HTTPException) as error:
        return [], f"no answer ({error or type(error).__name__})"
    if status != http.client.OK:
        return [], f"status {status}, {text[:200].decode(errors='replace')}"
    try:
        found = json.loads(text)["predictions"]
        answers = [
            ServedAnswer(id=str(name), label=one["answer"])
            if "answer" in one
            else ServedAnswer(id=str(name), label=one["label"], probabilities=one["probabilities"])
            for name, one in zip(rows["id"], found, strict=True)
        ]
    except (ValueError, KeyError, TypeError) as error:
        return [], f"status 200 and another shape than one label with probabilities a row ({type(error).__name__})"
    return answers, None


def _status(where: str | int, body: Any, until: float) -> int | None:
    """Return the status of a malformed request; None where the connection broke."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        return _send(where, "POST", "/invocations", data, max(until - time.monotonic(), 0.1))[0]
    except (OSError, http.client.HTTPException):
        return None


def _send(where: str | int, method: str, path: str, body: bytes, seconds: float) -> tuple[int, bytes]:
    """Send one request, straight to a socket or a port and past any proxy; return status and body."""
    connection = http.client.HTTPConnection(HOST, None if isinstance(where, str) else where, timeout=seconds)
    try:
        if isinstance(where, str):
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(seconds)
            connection.sock.connect(where)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
