"""Start, check, restart and end the processes of services: shared by the managed Prefect server, `retune up` and the local stack."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from components.core.errors import Unavailable
from components.core.output_dir import open_log
from components.core.process import end_group, is_foreign, tied_command

STEADY = 60.0  # seconds that a process must run before its next end counts as the first failure in a row


class RestartedProcess:
    """A child process that `revive` restarts after it ended; the pauses (seconds) get longer with each failure in a row."""

    def __init__(self, start: Callable[[], "subprocess.Popen[Any]"], pauses: Sequence[float] = (0.0,)) -> None:
        self._start, self._pauses = start, pauses
        self.child, self.restarts = start(), 0
        self._started, self._failures = time.monotonic(), 0
        self._due: float | None = None  # time of the next start

    def revive(self) -> bool:
        """Restart the process if it ended and its pause is over; return whether it was found ended just now."""
        now = time.monotonic()
        ended = self._due is None and has_ended(self.child)
        if ended:
            self._failures = self._failures + 1 if now - self._started < STEADY else 1
            self._due = now + self._pauses[min(self._failures, len(self._pauses)) - 1]
            end_group(self.child)  # the rest of its group
        if self._due is not None and now >= self._due:
            self.child, self._started, self._due, self.restarts = self._start(), now, None, self.restarts + 1
        return ended


def has_ended(child: "subprocess.Popen[Any]") -> bool:
    """Return whether a process has ended, without reaping it: its id stays reserved, so that its group can be ended."""
    try:
        return child.returncode is not None or os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # SIGCHLD is ignored
        return child.poll() is not None


def spawn(
    command: Sequence[str], log: Path, folder: Path | None = None, variables: Mapping[str, str] | None = None, **account: Any
) -> "subprocess.Popen[str]":
    """Start a command in a separate session, and append its output to `log`; it outlives this process unless it is tied to it.

    `variables` replace the environment; `account` has the arguments of Popen to run it as another user.
    """
    with os.fdopen(open_log(log), "a", encoding="utf-8") as out:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            text=True,
            **account,
        )


@contextmanager
def running(command: list[str], settings: dict[str, str], log: Path, folder: Path | None = None) -> Iterator["subprocess.Popen[str]"]:
    """Run a command with `settings` in its environment, tied to the life of this process."""
    child = spawn(tied_command(command), log, folder, os.environ | settings)
    try:
        yield child
    finally:
        end_group(child, grace=5.0)


def end_supervisor(tag: str, state: Path, seconds: float, logs: Path) -> None:
    """End the supervisor with the `owner` tag that is in the file `state`; it ends its services first.

    Raises:
        Unavailable: it runs on another host, whose PIDs mean other processes here, or it did not end within `seconds`.
    """
    if is_foreign(tag):
        raise Unavailable(
            f"{state} was written on {json.loads(tag)['host']}: end the services there, or remove the file if that host no longer exists"
        )
    with suppress(psutil.NoSuchProcess):
        supervisor = psutil.Process(json.loads(tag)["pid"])
        supervisor.terminate()
        if psutil.wait_procs([supervisor], timeout=seconds)[1]:
            raise Unavailable(f"process {supervisor.pid}, the supervisor of the services of {state}, did not end; see {logs}")


def http_fault(url: str, auth: tuple[str, str] | None = None, timeout: float = 5.0) -> str | None:
    """Return None if `url` answers with 200 within `timeout` seconds, else the fault."""
    try:
        status = httpx.get(url, auth=auth, timeout=timeout).status_code
    except httpx.HTTPError as error:
        return f"does not answer: {type(error).__name__}"
    return None if status == httpx.codes.OK else f"answers with {status}"


def listens(process: psutil.Process, port: int) -> bool:
    """Return whether a process or one of its children listens on a local port; another program may have taken it."""
    connections = []
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):
            connections += member.net_connections("inet")
    return any(connection.status == psutil.CONN_LISTEN and connection.laddr.port == port for connection in connections)


def log_tail(log: Path, lines: int = 5) -> str:
    """Return the last non-empty lines of a log; empty if it does not exist."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])
