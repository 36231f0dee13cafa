"""One managed local Prefect server over `var/prefect`: started on demand, shared by runs, gone when nobody needs it.

Never the ephemeral one: it gives up after 20 s on a busy machine, loses task records at exit, and is orphaned by kill -9.
A run holds a shared lock on `in-use` while it needs the server; the kernel drops it however the run ends. The supervisor
(`python -m flows.orchestrator.server VAR`) keeps the server alive, and ends it when the lock has been free for the lingering time.

Who reaches the API may run commands as the user: the server asks for the credential in var/prefect/auth, and answers no page of
another origin (`flows/orchestrator/guarded_app.py`).

Reads and writes var/prefect/server.json (address and process), auth, server.log, in-use, start.lock.
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
from components.core.output_dir import closed_to, make_private, open_log
from components.core.ports import HOST, free_port
from components.core.process import quiet_environment, tied_command
from flows.orchestrator import credential
from flows.orchestrator.prefect_api import auth, know
from flows.settings import Settings

log = logging.getLogger(__name__)

POLL = 0.2  # seconds
PREFERRED_PORT = 4200
# Which run holds a slot is kept in PREFECT_HOME, as slots are in the database: in memory, a server that restarts would forget who has
# which slot, end the runs at work, and never give a slot back whose run died meanwhile.
LEASES = {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}


@contextlib.contextmanager
def prefect_server(var: Path, settings: Settings) -> Iterator[str]:
    """Yield the API address of a healthy server, and keep it in use for as long as the block runs.

    Raises:
        Unavailable: it did not come up within the deadline, and the message holds the end of its log; or the one that the settings name
            does not answer.
    """
    if settings.prefect_api_url:
        reach(settings.prefect_api_url)
        yield settings.prefect_api_url
        return
    home = var / "prefect"
    make_private(home)
    with lock(home / "in-use", math.inf, shared=True):  # before looking: a supervisor that is leaving holds it exclusively
        yield running(home) or start(home, settings)


def reach(api: str) -> None:
    """Make sure that the server of the settings answers: Prefect's own client tries for long, and ends in its own words.

    Raises:
        Unavailable: it does not.
        RetuneError: it refuses us.
    """
    try:
        answer = httpx.get(f"{api}/version", timeout=5.0, auth=auth(api))
    except httpx.HTTPError as error:
        raise Unavailable(
            f"Prefect's server at {api} does not answer: {str(error) or type(error).__name__}; start it, or correct RETUNE_PREFECT_API_URL"
        ) from None
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise RetuneError(f"Prefect's server at {api} refuses us with {answer.status_code}; RETUNE_PREFECT_AUTH says who we are to it")
    if answer.is_error:
        raise Unavailable(f"Prefect's server at {api} answers with {answer.status_code}; RETUNE_PREFECT_API_URL is expected to end in /api")


def running(home: Path) -> str | None:
    """Return the address of this folder's server, if it answers to our credential; another project's may have taken over its port."""
    kept, secret = read_server(home), credential.read(home.parent)
    if kept is None or secret is None or not kept.guarded:
        return None
    try:
        if listens_at(kept) and status(kept.url, secret) == httpx.codes.OK:
            know(kept.url, secret)
            return kept.url
    except (psutil.Error, httpx.HTTPError):
        return None
    return None


@dataclass(frozen=True)
class Kept:
    """A server that a living supervisor keeps running; not `guarded`, an earlier release started it, and it answers everybody."""

    supervisor: psutil.Process
    url: str
    guarded: bool


def read_server(home: Path) -> Kept | None:
    """Return what server.json says; None where nothing was started, or its supervisor is gone."""
    try:
        state = json.loads((home / "server.json").read_text(encoding="utf-8"))
        supervisor, url = psutil.Process(state["pid"]), str(state["url"])
        command = supervisor.cmdline()
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None
    return Kept(supervisor, url, bool(state.get("guarded"))) if "flows.orchestrator.server" in command and str(home) in command else None


def listens_at(kept: Kept) -> bool:
    """Say whether it is that server which listens at its address: another one must not learn the credential."""
    return listens(kept.supervisor, int(httpx.URL(kept.url).port or 0))


def status(url: str, secret: str) -> int:
    """Return the status with which a server answers what it answers to nobody without the credential."""
    user, _, password = secret.partition(":")
    return httpx.get(f"{url}/version", timeout=5.0, auth=(user, password)).status_code


def end_open(home: Path) -> None:
    """End this folder's server where it asks for no credential, as an earlier release's, or for another one than is in the folder."""
    kept, secret = read_server(home), credential.make(home.parent)
    if kept is None:
        return
    with contextlib.suppress(httpx.HTTPError, psutil.Error):
        if kept.guarded and not (listens_at(kept) and status(kept.url, secret) == httpx.codes.UNAUTHORIZED):
            return
        log.warning("the local Prefect server asked for no credential, or for another one: it is replaced; runs under it end")
        family = [kept.supervisor, *kept.supervisor.children(recursive=True)]
        kept.supervisor.terminate()
        for process in psutil.wait_procs(family, timeout=10)[1]:
            process.kill()


def listens(process: psutil.Process, port: int) -> bool:
    """Say whether a process, or one that it started, listens on a port of this machine: what answers there may be another's."""
    found = []
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            found += one.net_connections("inet")
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in found)


def start(home: Path, settings: Settings) -> str:
    """Start a supervisor, unless another process just did, and wait until the server answers.

    Raises:
        Unavailable: the deadline passed.
    """
    end = time.monotonic() + settings.server_deadline
    path = home / "start.lock"
    busy = f"another process has been starting the Prefect server for {settings.server_deadline:.0f} s (lock {path})"
    with lock(path, settings.server_deadline, busy=busy):
        if url := running(home):
            return url
        end_open(home)
        check_database(home)
        (home / "server.json").unlink(missing_ok=True)
        with os.fdopen(open_log(home / "server.log"), "a") as out:
            supervisor = subprocess.Popen(
                [sys.executable, "-m", "flows.orchestrator.server", str(home), str(settings.server_linger)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        while time.monotonic() < end and supervisor.poll() is None:
            if url := running(home):
                return url
            time.sleep(POLL)
        with contextlib.suppress(ProcessLookupError):
            supervisor.terminate()
    tail = "\n".join((home / "server.log").read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
    raise Unavailable(
        f"the local Prefect server did not answer within RETUNE_SERVER_DEADLINE={settings.server_deadline:.0f} s; "
        f"`retune run --inline` does without. The end of {home / 'server.log'}:\n{tail}"
    )


def check_database(home: Path) -> None:
    """Refuse what cannot be the server's database, and warn of one that lost its content.

    Raises:
        RetuneError: it is a folder, or a file that is no SQLite database.
    """
    database = home / "prefect.db"
    if not database.exists():
        return
    head = b""
    if not database.is_dir():
        with database.open("rb") as file:
            head = file.read(16)
    if database.is_dir() or (head and not head.startswith(b"SQLite format 3")):
        raise RetuneError(f"{database} is not the database of Prefect's server: restore a copy, or move it away and a new one is made")
    if not head:
        log.warning("%s is empty: a server was killed at its first start, or flow runs and schedules were lost (`retune deploy`)", database)


def supervise(home: Path, linger: float) -> None:
    """Keep a server running until nobody has used it for `linger` seconds."""
    child, port = launch_anywhere(home, PREFERRED_PORT)
    idle_since: float | None = None
    while True:
        time.sleep(1.0)
        if child.poll() is not None:  # it was killed, or another one took its port before it did
            child, port = launch_anywhere(home, port)
        try:
            with lock(home / "in-use"):
                idle_since = idle_since or time.monotonic()
                if time.monotonic() - idle_since >= linger:
                    (home / "server.json").unlink(missing_ok=True)
                    child.terminate()
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        child.wait(10)
                    child.kill()
                    return
        except LockTimeout:
            idle_since = None


def launch_anywhere(home: Path, preferred: int) -> tuple["subprocess.Popen[bytes]", int]:
    """Start the server on the preferred port or a free one, and write down where it answers."""
    port = free_port(preferred)
    child = launch(home, port)
    write_text(home / "server.json", json.dumps({"url": f"http://{HOST}:{port}/api", "pid": os.getpid(), "guarded": True}))
    return child, port


def free_leases(home: Path) -> None:
    """Remove the lock that a killed server left on its leases: where the next one gets its number, it would wait for itself."""
    (home / "concurrency_leases/expirations.lock").unlink(missing_ok=True)


def launch(home: Path, port: int) -> subprocess.Popen[bytes]:
    """Start the server itself, tied to the life of this process."""
    free_leases(home)
    settings = server_settings(home, port, credential.make(home.parent))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API_")} | settings
    return subprocess.Popen(tied_command(server_command(port)), env=environment, stdin=subprocess.DEVNULL)


def server_command(port: int) -> list[str]:
    """Return the command of a Prefect server on loopback."""
    return [sys.executable, "-m", "flows.orchestrator.guarded_app", "prefect.server.api.server:create_app", "--port", str(port)]


def server_settings(home: Path, port: int, secret: str) -> dict[str, str]:
    """Return the variables of a Prefect server: `secret` is USER:PASSWORD, which each of its clients shows."""
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_UI_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT__SERVER_FINAL": "1",  # as `prefect server start` makes its application
        "PREFECT_SERVER_API_AUTH_STRING": secret,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port},http://localhost:{port}",
        **LEASES,
    }


if __name__ == "__main__":
    quiet_environment()
    os.umask(closed_to(Path(sys.argv[1])))
    sys.exit(run_command(lambda: supervise(Path(sys.argv[1]), float(sys.argv[2]))))
