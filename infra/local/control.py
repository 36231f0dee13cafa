"""The commands `up`, `down` and `status` of a stack; the supervisor stays in the background."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from components.core.errors import RetuneError, Unavailable
from components.core.exits import cancel_on
from components.core.process import is_alive
from flows.orchestrator.processes import end_supervisor, spawn
from infra.local.layout import Stack, open_stack
from infra.local.services import Service, database_service, mlflow_service, prefect_service, started_by, store_service, worker_service
from infra.local.supervisor import CODE, read_state, stack_lock, supervisor_of, sweep

DEADLINE = 600.0  # seconds to start or end everything; each service also has a shorter deadline
POLL = 0.3


def up(stack: Stack, project: Path, workers: int) -> None:
    """Start the stack in the background unless it runs, and wait until it is healthy; else end it and raise Unavailable."""
    if read_state(stack):
        return
    log = stack.log("keeper")
    before = log.stat().st_size if log.exists() else 0
    command = [sys.executable, "-m", "infra.local", "keep", str(stack.folder), "--workers", str(workers)]
    path = os.pathsep.join([str(CODE), *filter(None, [os.environ.get("PYTHONPATH")])])
    child = spawn(command, log, project, os.environ | {"PYTHONPATH": path})
    try:
        end = time.monotonic() + DEADLINE
        while child.poll() is None and not read_state(stack):
            if time.monotonic() > end:
                raise Unavailable(f"the stack did not start within {DEADLINE:.0f} s; see {stack.folder / 'logs'}")
            time.sleep(POLL)
    except BaseException:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(60)
        raise
    if child.poll() is not None:
        output = log.read_bytes()[before:].decode(errors="replace")
        raise Unavailable(output[output.rfind("error: ") :].removeprefix("error: ").strip() or f"the supervisor ended; see {log}")


def is_supervised(folder: Path) -> bool:
    """Return whether the stack in a folder has a supervisor: its services use their secrets, so no new ones may be created."""
    return (folder / "ports.json").exists() and read_state(open_stack(folder, whole=False)) is not None


def down(stack: Stack) -> bool:
    """End all processes of the stack and return whether there were any; raise Unavailable if one still runs."""
    state, remaining = read_state(stack), started_by(stack)
    if state:
        end_supervisor(str(state["owner"]), stack.folder / "state.json", DEADLINE, stack.log("keeper"))
    with stack_lock(stack):
        sweep(stack, spare=os.getpid())  # processes of a killed supervisor
    if still := started_by(stack):
        raise Unavailable(f"processes of {stack.folder} did not end: {', '.join(str(process.pid) for process in still)}")
    return bool(state or remaining)


def status(stack: Stack) -> tuple[list[str], bool]:
    """Return one line per service, and whether all are healthy."""
    state = read_state(stack)
    if state is None:
        remaining = started_by(stack)
        return [f"not running{f', but {len(remaining)} processes remain: `down` ends them' if remaining else ''}"], False
    services = [database_service(stack), store_service(stack), mlflow_service(stack), prefect_service(stack)]
    project, started = Path(state["project"]), state["services"]
    services += [worker_service(stack, project, int(name.partition("-")[2])) for name in started if name.startswith("worker-")]
    healthy = {service.name: is_healthy(service, started[service.name]["pid"]) for service in services}
    restarts = {name: f"  (restarted {times} times; see its log)" for name, entry in started.items() if (times := entry["restarts"])}
    lines = [f"{name:9} {'ok' if well else 'NOT WELL'}  {location(stack, name)}{restarts.get(name, '')}" for name, well in healthy.items()]
    return lines, all(healthy.values())


def is_healthy(service: Service, pid: int) -> bool:
    """Return whether a service's process exists and the service is healthy."""
    with contextlib.suppress(RetuneError):
        return is_alive(pid) and service.healthy()
    return False


def location(stack: Stack, name: str) -> str:
    """Return the URL or log of a service, without secrets."""
    known = {"mlflow": stack.mlflow, "prefect": stack.prefect.removesuffix("/api"), "s3": stack.s3}
    return known.get(name) or (f"127.0.0.1:{stack.ports['postgres']}" if name == "postgres" else f"{stack.log(name)}")


def supervise(folder: Path, project: Path, workers: int) -> None:
    """Run the supervisor until this process receives a signal."""
    cancel_on(signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    with supervisor_of(open_stack(folder), project, workers) as supervisor:
        supervisor.start()
        supervisor.run()
