"""The managed local Prefect server of `var/prefect`: started on demand, shared by runs, stopped when unused.

Prefect's ephemeral server is not used: on a busy machine it gives up after 20 s, loses task records at exit, and survives kill -9.
A run holds a shared lock on `in-use` while it needs the server; the kernel releases it however the run ends. The supervisor
(`python -m flows.orchestrator.server VAR`) keeps the server running, and stops it when the lock has been free for the linger time.

A client of the API can run commands as the user: the server requires the credential in var/prefect/auth, and rejects pages of
other origins (`flows/orchestrator/guarded_app.py`).

Reads and writes var/prefect/server.json (URL and process), auth, server.log, in-use, start.lock.
"""

import contextlib
import json
import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from components.core.atomic import write_text
from components.core.errors import RetuneError, Unavailable
from components.core.exits import run_command
from components.core.locks import LockTimeout, lock
from components.core.output_dir import closed_to, make_private
from components.core.ports import HOST, free_port
from components.core.process import quiet_environment, tied_command
from flows.orchestrator import credential
from flows.orchestrator.prefect_api import auth, use_credential
from flows.orchestrator.processes import RestartedProcess, listens, log_tail, spawn
from flows.settings import Settings

log = logging.getLogger(__name__)

POLL = 0.2  # seconds
PREFERRED_PORT = 4200
FORMER = "flows.server"  # the supervisor's module before 0.1.0; such a server is replaced
# Slot leases are stored in PREFECT_HOME, like slots in the database. In memory, a restarted server would forget them, end the
# active runs, and never free the slot of a run that died meanwhile.
LEASES = {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}


@contextlib.contextmanager
def prefect_server(var: Path, settings: Settings) -> Iterator[str]:
    """Yield the API URL of a healthy server, and keep it in use during the block.

    Raises:
        Unavailable: it did not start within the deadline (the message has the end of its log), or the configured server
            does not answer.
    """
    if settings.prefect_api_url:
        reach(settings.prefect_api_url)
        yield settings.prefect_api_url
        return
    home = var / "prefect"
    make_private(home)
    with lock(home / "in-use", math.inf, shared=True):  # before the check: a stopping supervisor holds it exclusively
        yield running(home) or start(home, settings)


def reach(api: str) -> None:
    """Check that the configured server answers; Prefect's own client would retry for long with unclear errors.

    Raises:
        Unavailable: it does not answer.
        RetuneError: it rejects the credential.
    """
    try:
        response = httpx.get(f"{api}/version", timeout=5.0, auth=auth(api))
    except httpx.HTTPError as error:
        raise Unavailable(
            f"Prefect's server at {api} does not answer: {str(error) or type(error).__name__}; "
            "start it, or correct RETUNE_PREFECT_API_URL, or unset it to use the local server"
        ) from None
    if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise RetuneError(f"Prefect's server at {api} rejects the request with {response.status_code}; check RETUNE_PREFECT_AUTH")
    if response.is_error:
        raise Unavailable(
            f"Prefect's server at {api} answers with {response.status_code}; RETUNE_PREFECT_API_URL is expected to end in /api"
        )


def running(home: Path) -> str | None:
    """Return the URL of this folder's server if it accepts our credential; another project's may have taken its port."""
    server, secret = read_server(home), credential.read(home.parent)
    if server is None or secret is None or not server.guarded:
        return None
    with contextlib.suppress(psutil.Error, httpx.HTTPError):
        if listens_at(server) and status(server.url, secret) == httpx.codes.OK:
            use_credential(server.url, secret)
            return server.url
    return None


@dataclass(frozen=True)
class ServerRecord:
    """A server with a living supervisor; not `guarded` if an earlier release without access control started it."""

    supervisor: psutil.Process
    url: str
    guarded: bool


def read_server(home: Path) -> ServerRecord | None:
    """Read server.json; None if no server was started or its supervisor ended."""
    try:
        state = json.loads((home / "server.json").read_text(encoding="utf-8"))
        supervisor, url = psutil.Process(state["pid"]), str(state["url"])
        command = supervisor.cmdline()
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None
    if str(home) not in command or not {"flows.orchestrator.server", FORMER} & set(command):
        return None
    return ServerRecord(supervisor, url, bool(state.get("guarded")) and FORMER not in command)


def listens_at(server: ServerRecord) -> bool:
    """Return whether the server itself listens at its URL: no other program may receive the credential."""
    return listens(server.supervisor, int(httpx.URL(server.url).port or 0))


def status(url: str, secret: str) -> int:
    """Return the status of a request that requires the credential."""
    user, _, password = secret.partition(":")
    return httpx.get(f"{url}/version", timeout=5.0, auth=(user, password)).status_code


def end_outdated(home: Path) -> None:
    """End this folder's server if it requires no credential (an earlier release) or another one than the folder's."""
    server, secret = read_server(home), credential.make(home.parent)
    if server is None:
        return
    with contextlib.suppress(httpx.HTTPError, psutil.Error):
        if server.guarded and not (listens_at(server) and status(server.url, secret) == httpx.codes.UNAUTHORIZED):
            return
        log.warning("replacing the local Prefect server, which required no credential or another one; its active runs end")
        processes = [server.supervisor, *server.supervisor.children(recursive=True)]
        server.supervisor.terminate()
        for process in psutil.wait_procs(processes, timeout=10)[1]:
            process.kill()


def start(home: Path, settings: Settings) -> str:
    """Start a supervisor unless one runs, and wait until the server answers; raise Unavailable after the deadline."""
    end = time.monotonic() + settings.server_deadline
    with lock(home / "start.lock", settings.server_deadline):
        if url := running(home):
            return url
        end_outdated(home)
        check_database(home)
        (home / "server.json").unlink(missing_ok=True)
        command = [sys.executable, "-m", "flows.orchestrator.server", str(home), str(settings.server_linger)]
        supervisor = spawn(command, home / "server.log")
        while time.monotonic() < end and supervisor.poll() is None:
            if url := running(home):
                return url
            time.sleep(POLL)
        with contextlib.suppress(ProcessLookupError):
            supervisor.terminate()
    raise Unavailable(
        f"the local Prefect server did not answer within RETUNE_SERVER_DEADLINE={settings.server_deadline:.0f} s; "
        f"`retune run --inline` works without it. The end of {home / 'server.log'}:\n{log_tail(home / 'server.log')}"
    )


def check_database(home: Path) -> None:
    """Raise RetuneError for a file that cannot be the server's database, and warn if it is empty."""
    database, head = home / "prefect.db", b"a folder"
    if not database.exists():
        return
    if not database.is_dir():
        with database.open("rb") as file:
            head = file.read(16)
    if head and not head.startswith(b"SQLite format 3"):
        raise RetuneError(f"{database} is not a database of Prefect's server: restore a copy, or move it away to start with a new one")
    if not head:
        log.warning(
            "%s is empty: a server was killed at its first start, or runs and schedules were lost (`retune deploy` restores schedules)",
            database,
        )


def supervise(home: Path, linger: float) -> None:
    """Keep a server running until no run has used it for `linger` seconds."""
    port = PREFERRED_PORT

    def start() -> "subprocess.Popen[bytes]":
        nonlocal port
        child, port = launch_anywhere(home, port)
        return child

    server = RestartedProcess(start)
    idle_since: float | None = None
    while True:
        time.sleep(1.0)
        server.revive()  # it was killed, or another program took its port
        if not home.is_dir():  # the project was deleted
            server.child.kill()
            return
        try:
            with lock(home / "in-use"):
                idle_since = idle_since or time.monotonic()
                if time.monotonic() - idle_since < linger:
                    continue
                (home / "server.json").unlink(missing_ok=True)
                server.child.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.child.wait(10)
                server.child.kill()
                return
        except LockTimeout:  # a run uses the server
            idle_since = None


def launch_anywhere(home: Path, preferred: int) -> tuple["subprocess.Popen[bytes]", int]:
    """Start the server on the preferred port or a free one, tied to the life of this process, and record its URL."""
    port = free_port(preferred)
    remove_lease_lock(home)
    settings = server_settings(home, port, credential.make(home.parent))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API_")} | settings
    child = subprocess.Popen(tied_command(server_command(port)), env=environment, stdin=subprocess.DEVNULL)
    write_text(home / "server.json", json.dumps({"url": f"http://{HOST}:{port}/api", "pid": os.getpid(), "guarded": True}))
    return child, port


def remove_lease_lock(home: Path) -> None:
    """Remove the lock that a killed server left on its leases; a new server with the same PID would wait for it."""
    (home / "concurrency_leases/expirations.lock").unlink(missing_ok=True)


def server_command(port: int) -> list[str]:
    """Return the command of a Prefect server on loopback."""
    return [sys.executable, "-m", "flows.orchestrator.guarded_app", "prefect.server.api.server:create_app", "--port", str(port)]


def server_settings(home: Path, port: int, secret: str) -> dict[str, str]:
    """Return the environment variables of a Prefect server; `secret` is the credential USER:PASSWORD of its clients."""
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_UI_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT__SERVER_FINAL": "1",  # like `prefect server start`
        "PREFECT_SERVER_API_AUTH_STRING": secret,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port},http://localhost:{port}",
        **LEASES,
    }


if __name__ == "__main__":
    quiet_environment()
    os.umask(closed_to(Path(sys.argv[1])))
    sys.exit(run_command(lambda: supervise(Path(sys.argv[1]), float(sys.argv[2]))))
