"""Start the services of a stack in order, restart those that end, and end all on a signal.

Writes state.json: the supervisor's process, and how often each service was restarted.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from components.core.atomic import write_text
from components.core.errors import Unavailable
from components.core.locks import lock
from components.core.ports import HOST, free_port
from components.core.process import end_group, is_gone, owner, tied_command
from flows.orchestrator.processes import RestartedProcess, has_ended, log_tail, spawn
from flows.orchestrator.server import remove_lease_lock
from infra.local import bootstrap, postgres
from infra.local.layout import PRIVATE, Stack
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
PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)  # before the restart of a service, growing with failures in a row
LONGEST = 120.0  # seconds until a service must answer
CODE = Path(__file__).parents[2]


class RunningService(RestartedProcess):
    """The process of a service, which is restarted after it ended."""

    def __init__(self, stack: Stack, service: Service) -> None:
        super().__init__(partial(start_service, stack, service), PAUSES)
        self.service = service


class Supervisor:
    """Keeps the services of a stack running."""

    def __init__(self, stack: Stack, project: Path, workers: int) -> None:
        self._stack, self._project, self._workers = stack, project, workers
        self._running: dict[str, RunningService] = {}

    def start(self) -> None:
        """Start all services and wait until they are healthy; raise RetuneError, with the log, if one does not start."""
        stack = self._stack
        self.start_stores()
        bootstrap.prepare_databases(stack)
        servers = [mlflow_service(stack), prefect_service(stack)]
        self.launch(*servers)
        self.await_healthy(*servers)
        workers = [worker_service(stack, self._project, number) for number in range(1, self._workers + 1)]
        for group in (workers[:1], workers[1:]):  # the first creates the work pool; two at once would collide
            self.launch(*group)
            self.await_healthy(*group)

    def start_stores(self) -> None:
        """Start PostgreSQL and the S3 store, and create roles, databases and buckets."""
        stack = self._stack
        postgres.make_cluster(stack)
        (stack.folder / "s3").mkdir(exist_ok=True)
        stores = [database_service(stack), store_service(stack)]
        self.launch(*stores)
        self.await_healthy(*stores)
        postgres.make_databases(stack)
        bootstrap.prepare_buckets(stack, LONGEST)

    def launch(self, *services: Service) -> None:
        """Start services, without waiting."""
        for service in services:
            self._running[service.name] = RunningService(self._stack, service)

    def await_healthy(self, *services: Service) -> None:
        """Wait until services are healthy; raise Unavailable if one ends, or is not healthy within the deadline."""
        end = time.monotonic() + LONGEST
        for service in services:
            while not service.healthy():
                ended = self._running[service.name].child.poll()
                if ended is not None or time.monotonic() > end:
                    fault = f"ended with {ended}" if ended is not None else f"did not answer within {LONGEST:.0f} s"
                    log = self._stack.log(service.name)
                    raise Unavailable(f"{service.name} {fault}; the end of {log}:\n{log_tail(log)}")
                time.sleep(POLL)

    def run(self) -> None:
        """Restart services that end, until this process receives a signal."""
        while True:
            for running in self._running.values():
                if running.revive():
                    note(f"{running.service.name} ended with {running.child.returncode} and will be restarted")
            self.write_state()
            time.sleep(POLL)

    def stop(self) -> None:
        """End all services, workers first and stores last, and their remaining processes."""
        stores = [running for name, running in self._running.items() if name in ("postgres", "s3")]
        workers = [running for name, running in self._running.items() if name.startswith("worker-")]
        servers = [running for running in self._running.values() if running not in workers + stores]
        for wave in (workers, servers, stores):
            end(wave)
        sweep(self._stack, spare=os.getpid())

    def write_state(self) -> None:
        """Write state.json if it changed."""
        services = {name: {"pid": running.child.pid, "restarts": running.restarts} for name, running in self._running.items()}
        text = json.dumps({"owner": owner(), "project": str(self._project), "services": services})
        path = self._stack.folder / "state.json"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text, PRIVATE)


def start_service(stack: Stack, service: Service) -> "subprocess.Popen[str]":
    """Start a service, tied to the life of this process if it runs as the same user."""
    if service.name == "prefect":
        remove_lease_lock(stack.folder / "prefect")
    command = list(service.command) if service.account else tied_command(service.command)
    variables = environment(stack, service.settings)
    variables.setdefault("PYTHONPATH", str(CODE))
    return spawn(command, stack.log(service.name), service.folder, variables, **service.account)


def end(services: Sequence[RunningService]) -> None:
    """End services and their process groups: SIGINT, which also shuts PostgreSQL down cleanly, then SIGKILL after their grace period."""
    living, begin = [service for service in services if service.child.returncode is None], time.monotonic()
    for running in living:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.child.pid, signal.SIGINT)
    for running in living:
        while not has_ended(running.child) and time.monotonic() < begin + running.service.grace:
            time.sleep(0.05)
        end_group(running.child)


def sweep(stack: Stack, spare: int) -> None:
    """End the stack's remaining processes except `spare`: first with SIGTERM, since PostgreSQL may be among them."""
    remaining = [process for process in started_by(stack) if process.pid != spare]
    for process in remaining:
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs(remaining, timeout=10)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=10)


def note(text: str) -> None:
    """Write a line to the supervisor's log."""
    print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def stack_lock(stack: Stack) -> Iterator[None]:
    """Lock the stack, as only one process may run its services; raise Unavailable if another does."""
    busy = f"the stack in {stack.folder} is running or stopping: end it with `python -m infra.local down`"
    with lock(stack.folder / "running", busy=busy):
        yield


def check_ports(stack: Stack) -> None:
    """Raise Unavailable if a port of the stack is in use."""
    if taken := [f"{name} {port}" for name, port in stack.ports.items() if free_port(port) != port]:
        raise Unavailable(
            f"ports of {HOST} in use by other programs: {', '.join(taken)}; end these, or set other ports in"
            f" {stack.folder / 'ports.json'}, and copy {stack.folder / 'retune.env'} to the projects again"
        )


@contextlib.contextmanager
def supervisor_of(stack: Stack, project: Path, workers: int) -> Iterator[Supervisor]:
    """Yield a supervisor that ends its services after the block; raise Unavailable if the stack runs or a port is in use."""
    with stack_lock(stack):
        sweep(stack, spare=os.getpid())  # processes of a killed supervisor
        check_ports(stack)
        supervisor = Supervisor(stack, project, workers)
        try:
            yield supervisor
        finally:
            (stack.folder / "state.json").unlink(missing_ok=True)
            supervisor.stop()


def read_state(stack: Stack) -> dict[str, Any] | None:
    """Read state.json; None if no supervisor is running."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        state: dict[str, Any] = json.loads((stack.folder / "state.json").read_text(encoding="utf-8"))
        return None if is_gone(str(state["owner"])) else state
    return None
