"""`retune up`, `retune down`: Prefect's server, MLflow's server, the form for approvals and workers, in the background over `var/`.

`python -m infra.services up N | down` is what the commands call; `… supervise N` is the process that stays. What the settings name as
shared is not started. Reads and writes var/services/state.json, and a log of each service beside it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import psutil

from components.core.atomic import write_text
from components.core.errors import Cancelled, Unavailable
from components.core.exits import run_command
from components.core.locks import lock
from components.core.output_dir import make_private, open_log
from components.core.process import end_group, is_foreign, owner, quiet_environment
from components.model.base_resolver import PROJECT
from flows.audit.registered_model import open_project
from flows.orchestrator import orphaned_runs
from flows.orchestrator.prefect_api import POOL, client_settings
from flows.orchestrator.server import prefect_server
from flows.orchestrator.services import STATE, State, read_state
from flows.project.workspace import Workspace
from flows.settings import Settings, read_settings
from infra.ui import approvals, login, mlflow, running

GRACE = 20.0  # seconds that a worker has to end its runs
POLL = 0.5
AGAIN = 5.0  # seconds before a worker that ended by itself is started again


def up(workspace: Workspace, settings: Settings, workers: int) -> State:
    """Start what is not running yet, and wait until it answers.

    Raises:
        Unavailable: it did not come up within the deadline; the message holds the end of its log.
    """
    home = (workspace.var / STATE).parent
    make_private(home)
    with lock(home / "up.lock", settings.server_deadline):
        if state := read_state(workspace.var):
            if state.guarded:
                return state
            print("what runs is of an earlier release, and answers every web page: it is replaced", file=sys.stderr)
            down(workspace, settings)
        log = home / "services.log"
        with os.fdopen(open_log(log), "a", encoding="utf-8") as out:
            command = [sys.executable, "-m", "infra.services", "supervise", str(workers)]
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, text=True)
        end = time.monotonic() + 2 * settings.server_deadline  # of two servers, one after the other
        while time.monotonic() < end and child.poll() is None:
            if state := read_state(workspace.var):
                return state
            time.sleep(POLL)
        end_group(child, GRACE)
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
    raise Unavailable(f"the services did not come up; the end of {log}:\n{tail}")


def down(workspace: Workspace, settings: Settings) -> bool:
    """End what `up` has started, and say whether there was anything; runs that are at work end, and go on with the next one.

    Raises:
        Unavailable: something still runs after the deadline.
    """
    state = read_state(workspace.var)
    if state is None:
        return False
    refuse_foreign(state.owner, workspace.var / STATE)
    with contextlib.suppress(psutil.NoSuchProcess):
        keeper = psutil.Process(json.loads(state.owner)["pid"])
        keeper.terminate()
        _, alive = psutil.wait_procs([keeper], timeout=settings.server_deadline)
        if alive:
            raise Unavailable(f"process {keeper.pid} keeps the services running still; see {workspace.var / STATE.parent}")
    return True


def refuse_foreign(tag: str, noted: Path) -> None:
    """Refuse to end what another machine runs: here its number is another process's.

    Raises:
        Unavailable: the process of `tag` is of another host.
    """
    if is_foreign(tag):
        raise Unavailable(f"{noted} was written on {json.loads(tag)['host']}: end it there, or remove the file if that machine is gone")


def supervise(workspace: Workspace, settings: Settings, workers: int) -> None:
    """Keep the services running until this process is told to end."""
    home = (workspace.var / STATE).parent
    with (
        prefect_server(workspace.var, settings) as prefect,
        mlflow(workspace, settings) as address,
        approvals(workspace, prefect),
        contextlib.ExitStack() as stack,
    ):
        orphaned_runs.close(prefect, managed=not settings.prefect_api_url)  # before a worker begins another
        children = [stack.enter_context(worker(workspace, prefect, home / f"worker-{number}.log")) for number in range(workers)]
        try:
            while True:
                write_state(home, State(owner(), prefect, address, tuple(child.pid for child in children), guarded=True))
                time.sleep(AGAIN)
                for number, child in enumerate(children):
                    if child.poll() is not None:
                        children[number] = stack.enter_context(worker(workspace, prefect, home / f"worker-{number}.log"))
        finally:
            (home / STATE.name).unlink(missing_ok=True)


@contextlib.contextmanager
def worker(workspace: Workspace, prefect: str, log: Path) -> Iterator["subprocess.Popen[str]"]:
    """Run a worker of the project's work pool."""
    command, settings = worker_command(workspace.project, prefect)
    with running(command, settings, log, workspace.project) as child:
        yield child


def worker_command(project: Path, prefect: str) -> tuple[list[str], dict[str, str]]:
    """Return the command of a worker of the project's work pool, and its environment."""
    settings = {
        **client_settings(prefect),
        "PREFECT_RUNNER_SERVER_ENABLE": "false",  # it listens nowhere
        "PREFECT_HOME": str(project / "var/prefect"),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "components,flows",
        "PREFECT_WORKER_QUERY_SECONDS": "5",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(project),
        PROJECT: str(project),
    }
    return [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--limit", "1"], settings


def write_state(home: Path, state: State) -> None:
    """Write what is running, by rename."""
    write_text(home / STATE.name, json.dumps(asdict(state)))


def install_signal_handlers() -> None:
    """Let what ends this process politely end the services first."""

    def ended(number: int, _frame: FrameType | None) -> None:
        raise Cancelled(f"ended by {signal.Signals(number).name}")

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, ended)


def main(verb: str, workers: str = "1") -> None:
    """Do what `retune up` and `retune down` ask, or be the process that stays."""
    quiet_environment()
    workspace = open_project()
    settings = read_settings(workspace.project)
    if verb == "supervise":
        install_signal_handlers()
        with contextlib.suppress(Cancelled):
            supervise(workspace, settings, int(workers))
    elif verb == "up":
        print(json.dumps(asdict(up(workspace, settings, int(workers))) | {"login": login(workspace.var, settings)}))
    else:
        print(json.dumps(down(workspace, settings)))


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(*sys.argv[1:])))
