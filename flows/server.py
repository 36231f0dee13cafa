"""One managed local Prefect server over `var/prefect`: started on demand, shared by runs, gone when nobody needs it.

Never the ephemeral one: it gives up after 20 s on a busy machine, loses task records at exit, and is orphaned by kill -9.
A run holds a shared lock on `in-use` while it needs the server; the kernel drops it however the run ends. The supervisor
(`python -m flows.server VAR`) keeps the server alive, and ends it when the lock has been free for the lingering time.

Reads and writes var/prefect/server.json (address and process), server.log, in-use, start.lock.
"""

import contextlib
import fcntl
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
from filelock import FileLock, Timeout

from components.errors import RetuneError, Unavailable
from components.process import quiet_environment
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
        Unavailable: it did not come up within the deadline; the message holds the end of its log.
    """
    if settings.prefect_api_url:
        yield settings.prefect_api_url
        return
    home = var / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "in-use").open("a") as use:
        fcntl.flock(use, fcntl.LOCK_SH)  # before looking: a supervisor that is leaving holds it exclusively
        yield running(home) or start(home, settings)


def running(home: Path) -> str | None:
    """Return the address of this folder's server, if it answers; another project's may have taken over its port."""
    try:
        state = json.loads((home / "server.json").read_text(encoding="utf-8"))
        supervisor, url = psutil.Process(state["pid"]), str(state["url"])
        command = supervisor.cmdline()
        if "flows.server" not in command or str(home) not in command or not listens(supervisor, int(httpx.URL(url).port or 0)):
            return None
        return url if httpx.get(f"{url}/health", timeout=5.0).status_code == httpx.codes.OK else None
    except (OSError, ValueError, KeyError, psutil.Error, httpx.HTTPError):
        return None


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
    with _start_lock(home, settings.server_deadline):
        if url := running(home):
            return url
        check_database(home)
        (home / "server.json").unlink(missing_ok=True)
        with (home / "server.log").open("a") as out:
            supervisor = subprocess.Popen(
                [sys.executable, "-m", "flows.server", str(home), str(settings.server_linger)],
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


@contextlib.contextmanager
def _start_lock(home: Path, deadline: float) -> Iterator[None]:
    lock = FileLock(home / "start.lock", timeout=deadline)
    try:
        lock.acquire()
    except Timeout:
        raise Unavailable(
            f"another process has been starting the Prefect server for {deadline:.0f} s (lock {home / 'start.lock'})"
        ) from None
    try:
        yield
    finally:
        lock.release()


def supervise(home: Path, linger: float) -> None:
    """Keep a server running until nobody has used it for `linger` seconds."""
    child, port = launch_anywhere(home, PREFERRED_PORT)
    idle_since: float | None = None
    with (home / "in-use").open("a") as use:
        while True:
            time.sleep(1.0)
            if child.poll() is not None:  # it was killed, or another one took its port before it did
                child, port = launch_anywhere(home, port)
            if not _take(use.fileno()):
                idle_since = None
                continue
            idle_since = idle_since or time.monotonic()
            if time.monotonic() - idle_since >= linger:
                (home / "server.json").unlink(missing_ok=True)
                child.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(10)
                child.kill()
                return
            fcntl.flock(use, fcntl.LOCK_UN)


def launch_anywhere(home: Path, preferred: int) -> tuple["subprocess.Popen[bytes]", int]:
    """Start the server on the preferred port or a free one, and write down where it answers."""
    port = free_port(preferred)
    child = launch(home, port)
    partial = home / "server.json.partial"
    partial.write_text(json.dumps({"url": f"http://127.0.0.1:{port}/api", "pid": os.getpid()}), encoding="utf-8")
    os.replace(partial, home / "server.json")
    return child, port


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def free_leases(home: Path) -> None:
    """Remove the lock that a killed server left on its leases: where the next one gets its number, it would wait for itself."""
    (home / "concurrency_leases/expirations.lock").unlink(missing_ok=True)


def launch(home: Path, port: int) -> subprocess.Popen[bytes]:
    """Start the server itself, tied to the life of this process."""
    free_leases(home)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    settings = {"PREFECT_HOME": str(home), "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_CLI_PROMPT": "false"}
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | settings | LEASES
    return subprocess.Popen([sys.executable, "-m", "components.process", *command], env=environment, stdin=subprocess.DEVNULL)


def free_port(preferred: int) -> int:
    """Return the preferred port of 127.0.0.1 if it is free, else any free one."""
    for port in (preferred, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise Unavailable("no free port on 127.0.0.1")


if __name__ == "__main__":
    quiet_environment()
    supervise(Path(sys.argv[1]), float(sys.argv[2]))
