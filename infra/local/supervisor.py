"""Starts the services of a stack in their order, starts again what ends, and ends everything when it is told to.

Writes state.json: who it is, and how often each service was started again.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from components.core.errors import Unavailable
from components.core.locks import lock
from components.core.ports import HOST, is_free
from components.core.process import is_gone, owner, tied_command
from flows.orchestrator.server import free_leases
from infra.local import bootstrap, postgres
from infra.local.layout import Stack, write_private
from infra.local.services import (
    Service,
    database_service,
    environment,
    mlflow_service,
    prefect_service,
    started_by,
    store_service,
    worker_service,
)

POLL = 0.5  # seconds
PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)  # before a service that ended by itself is started again; longer each time in a row
STEADY = 60.0  # seconds that a service has to run before its next end counts as the first in a row
LONGEST = 120.0  # seconds that a service may take to answer
CODE = Path(__file__).parents[2]


@dataclass
class RunningService:
    """A service and its process."""

    service: Service
    child: "subprocess.Popen[bytes]"
    started: float
    restarts: int = 0
    in_a_row: int = 0
    due: float | None = None  # when it is to be started again


class Supervisor:
    """Keeps the services of a stack running."""

    def __init__(self, stack: Stack, project: Path, workers: int) -> None:
        self._stack, self._project, self._workers = stack, project, workers
        self._running: dict[str, RunningService] = {}

    def start(self) -> None:
        """Start everything and wait until it is well.

        Raises:
            RetuneError: something did not come up; the message names its log.
        """
        stack = self._stack
        self.start_stores()
        bootstrap.prepare_databases(stack)
        servers = [mlflow_service(stack), prefect_service(stack)]
        self.launch(*servers)
        self.await_well(*servers)
        workers = [worker_service(stack, self._project, number) for number in range(1, self._workers + 1)]
        for first_or_rest in (workers[:1], workers[1:]):  # the first makes the work pool; two that make it at once collide
            self.launch(*first_or_rest)
            self.await_well(*first_or_rest)

    def start_stores(self) -> None:
        """Start PostgreSQL and the S3 store, with databases' roles and buckets in them."""
        stack = self._stack
        postgres.make_cluster(stack)
        (stack.folder / "s3").mkdir(exist_ok=True)
        stores = [database_service(stack), store_service(stack)]
        self.launch(*stores)
        self.await_well(*stores)
        postgres.make_databases(stack)
        bootstrap.prepare_buckets(stack, LONGEST)

    def launch(self, *services: Service) -> None:
        """Start services, without waiting."""
        for service in services:
            self._running[service.name] = RunningService(service, spawn(self._stack, service), time.monotonic())

    def await_well(self, *services: Service) -> None:
        """Wait until services are well.

        Raises:
            Unavailable: one ended, or is not well within the deadline.
        """
        end = time.monotonic() + LONGEST
        for service in services:
            while not service.well():
                ended = self._running[service.name].child.poll()
                if ended is not None or time.monotonic() > end:
                    what = f"ended with {ended}" if ended is not None else f"did not answer within {LONGEST:.0f} s"
                    raise Unavailable(f"{service.name} {what}; {last_words(self._stack, service.name)}")
                time.sleep(POLL)

    def keep(self) -> None:
        """Start again whatever ends, until this process is told to end."""
        while True:
            for one in self._running.values():
                self._revive(one)
            self.write_state()
            time.sleep(POLL)

    def _revive(self, one: RunningService) -> None:
        now = time.monotonic()
        if one.due is None and has_ended(one.child):
            one.in_a_row = one.in_a_row + 1 if now - one.started < STEADY else 1
            one.due = now + PAUSES[min(one.in_a_row, len(PAUSES)) - 1]
            end([one], politely=False)  # what it leaves of its group
            note(f"{one.service.name} ended with {one.child.returncode}, and is started again")
        if one.due is not None and now >= one.due:
            one.child, one.started, one.due, one.restarts = spawn(self._stack, one.service), now, None, one.restarts + 1

    def stop(self) -> None:
        """End all services, workers first and stores last, and whatever they have left behind."""
        workers = [one for name, one in self._running.items() if name.startswith("worker-")]
        stores = [one for name, one in self._running.items() if name in ("postgres", "s3")]
        servers = [one for one in self._running.values() if one not in workers and one not in stores]
        for wave in (workers, servers, stores):
            end(wave)
        sweep(self._stack, spare=os.getpid())

    def write_state(self) -> None:
        """Write down who keeps what, where that has changed."""
        services = {name: {"pid": one.child.pid, "restarts": one.restarts} for name, one in self._running.items()}
        text = json.dumps({"owner": owner(), "project": str(self._project), "services": services})
        path = self._stack.folder / "state.json"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_private(path, text)


def spawn(stack: Stack, service: Service) -> "subprocess.Popen[bytes]":
    """Start the process of a service in a session of its own, tied to the life of this one where it is the same user's."""
    if service.name == "prefect":
        free_leases(stack.folder / "prefect")
    command = list(service.command) if service.account else tied_command(service.command)
    variables = environment(stack, service.settings)
    variables.setdefault("PYTHONPATH", str(CODE))
    with stack.log(service.name).open("a", encoding="utf-8") as out:
        return subprocess.Popen(
            command,
            cwd=service.folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            **service.account,
        )


def has_ended(child: "subprocess.Popen[bytes]") -> bool:
    """Say whether a process has ended; its number stays its own, so that the rest of its group can be ended."""
    if child.returncode is not None:
        return True
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def end(several: Sequence[RunningService], politely: bool = True) -> None:
    """End processes and their groups: SIGINT, which PostgreSQL too takes for a quick and clean end, and SIGKILL after their grace."""
    living, begun = [one for one in several if one.child.returncode is None], time.monotonic()
    for one in living if politely else []:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.child.pid, signal.SIGINT)
    for one in living:
        while politely and not has_ended(one.child) and time.monotonic() < begun + one.service.grace:
            time.sleep(0.05)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(one.child.pid, signal.SIGKILL)
        one.child.wait()


def sweep(stack: Stack, spare: int) -> None:
    """End what still runs of the stack, but for the process `spare`; politely first, since PostgreSQL may be among it."""
    left = [process for process in started_by(stack) if process.pid != spare]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(left, timeout=10)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=10)


def last_words(stack: Stack, service: str) -> str:
    """Return the end of a service's log, and where it is."""
    log = stack.log(service)
    said = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()] if log.exists() else []
    return f"the end of {log}:\n" + "\n".join(said[-5:])


def note(text: str) -> None:
    """Write a line into the keeper's log."""
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def alone(stack: Stack) -> Iterator[None]:
    """Hold the stack: one process at a time runs its services.

    Raises:
        Unavailable: another does.
    """
    busy = f"the stack of {stack.folder} is running, or about to end: `python -m infra.local down` ends it"
    with lock(stack.folder / "running", busy=busy):
        yield


def check_ports(stack: Stack) -> None:
    """Make sure that the stack's ports are free.

    Raises:
        Unavailable: they are not.
    """
    if taken := [f"{name} {port}" for name, port in stack.ports.items() if not is_free(port)]:
        raise Unavailable(
            f"ports of {HOST} that another program uses: {', '.join(taken)}; end it, or give the services others in"
            f" {stack.folder / 'ports.json'}, and copy {stack.folder / 'retune.env'} to the projects again"
        )


@contextlib.contextmanager
def kept(stack: Stack, project: Path, workers: int) -> Iterator[Supervisor]:
    """Give a keeper for the block, which ends what it has started however the block ends.

    Raises:
        Unavailable: the stack is running, or a port is taken.
    """
    with alone(stack):
        sweep(stack, spare=os.getpid())  # what a keeper that was killed has left
        check_ports(stack)
        keeper = Supervisor(stack, project, workers)
        try:
            yield keeper
        finally:
            (stack.folder / "state.json").unlink(missing_ok=True)
            keeper.stop()


def read_state(stack: Stack) -> dict[str, Any] | None:
    """Return what the keeper wrote; None where none is at work."""
    try:
        state: dict[str, Any] = json.loads((stack.folder / "state.json").read_text(encoding="utf-8"))
        return None if is_gone(str(state["owner"])) else state
    except (OSError, ValueError, KeyError):
        return None
