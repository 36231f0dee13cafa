"""Up, down, status: what a person asks of a stack. The keeper stays in the background; these come and go."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from components.core.errors import RetuneError, Unavailable
from flows.orchestrator.processes import cancel_on_signals
from infra.local.layout import Stack, open_stack
from infra.local.services import database_service, mlflow_service, prefect_service, started_by, store_service, worker_service
from infra.local.supervisor import CODE, alone, kept, read_state, sweep
from infra.services import refuse_foreign

DEADLINE = 600.0  # seconds until everything must be up or down; each service has a shorter one of its own
POLL = 0.3


def up(stack: Stack, project: Path, workers: int) -> None:
    """Start the stack in the background, and wait until everything is well; nothing where it is.

    Raises:
        Unavailable: it did not come up; nothing is left running.
    """
    if read_state(stack):
        return
    log = stack.log("keeper")
    with log.open("a", encoding="utf-8") as out:
        before = out.seek(0, os.SEEK_END)
        command = [sys.executable, "-m", "infra.local", "keep", str(stack.folder), "--workers", str(workers)]
        path = os.pathsep.join([str(CODE), *filter(None, [os.environ.get("PYTHONPATH")])])
        child = subprocess.Popen(
            command,
            cwd=project,
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        await_state(stack, child)
    except BaseException:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(60)
        raise
    if child.poll() is not None:
        said = log.read_bytes()[before:].decode(errors="replace")
        raise Unavailable(said[said.rfind("error: ") :].removeprefix("error: ").strip() or f"the keeper ended; see {log}")


def is_kept(folder: Path) -> bool:
    """Say whether a keeper is at work in a folder: its services know their secrets, and others must not be made up meanwhile."""
    return (folder / "ports.json").exists() and read_state(open_stack(folder, whole=False)) is not None


def await_state(stack: Stack, child: "subprocess.Popen[bytes]") -> None:
    """Wait until the keeper says that everything is up, or has ended.

    Raises:
        Unavailable: neither happened within the deadline.
    """
    end = time.monotonic() + DEADLINE
    while child.poll() is None and not read_state(stack):
        if time.monotonic() > end:
            raise Unavailable(f"the stack was not up within {DEADLINE:.0f} s; see {stack.folder / 'logs'}")
        time.sleep(POLL)


def down(stack: Stack) -> bool:
    """End everything that the stack has started, and say whether there was anything.

    Raises:
        Unavailable: something still runs after the deadline.
    """
    state, left = read_state(stack), started_by(stack)
    if state:
        refuse_foreign(str(state["owner"]), stack.folder / "state.json")
        keeper = psutil.Process(json.loads(state["owner"])["pid"])
        with contextlib.suppress(psutil.NoSuchProcess):
            keeper.terminate()
            if psutil.wait_procs([keeper], timeout=DEADLINE)[1]:
                raise Unavailable(f"process {keeper.pid}, the keeper of {stack.folder}, does not end; see {stack.log('keeper')}")
    with alone(stack):
        sweep(stack, spare=os.getpid())  # what a keeper that was killed has left
    if still := started_by(stack):
        raise Unavailable(f"processes of {stack.folder} that do not end: {', '.join(str(one.pid) for one in still)}")
    return bool(state or left)


def status(stack: Stack) -> tuple[list[str], bool]:
    """Return a line for each service, and whether everything is well."""
    state = read_state(stack)
    if state is None:
        left = started_by(stack)
        return [f"not running{f', but {len(left)} processes are left: `down` ends them' if left else ''}"], False
    services = [database_service(stack), store_service(stack), mlflow_service(stack), prefect_service(stack)]
    project, started = Path(state["project"]), state["services"]
    services += [worker_service(stack, project, int(name.partition("-")[2])) for name in started if name.startswith("worker-")]
    found = [(one.name, healthy(one.name, started, one.well)) for one in services]
    lines = [
        f"{name:9} {'ok' if well else 'NOT WELL'}  {where(stack, name)}{_restarted(started[name]['restarts'])}" for name, well in found
    ]
    return lines, all(well for _, well in found)


def healthy(name: str, started: dict[str, dict[str, int]], well: Callable[[], bool]) -> bool:
    """Say whether the process of a service is there, and the service answers as it should."""
    try:
        return psutil.pid_exists(started[name]["pid"]) and well()
    except RetuneError:
        return False


def where(stack: Stack, name: str) -> str:
    """Return where a service is found; for a person, without secrets."""
    known = {"mlflow": stack.mlflow, "prefect": stack.prefect.removesuffix("/api"), "s3": stack.s3}
    return known.get(name) or (f"127.0.0.1:{stack.ports['postgres']}" if name == "postgres" else f"{stack.log(name)}")


def _restarted(times: int) -> str:
    return f"  (started again {times} times; see its log)" if times else ""


def keep(folder: Path, project: Path, workers: int) -> None:
    """Be the keeper, until told to end."""
    cancel_on_signals()
    with kept(open_stack(folder), project, workers) as keeper:
        keeper.start()
        keeper.keep()
