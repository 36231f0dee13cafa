"""`retune up`, `retune down`: run Prefect's server, MLflow's server, the approval form and workers of `var/` in the background.

The commands call `python -m infra.services up N | down`; `… supervise N` is the background process. Services that the settings
name as shared are not started. Reads and writes var/services/state.json and, next to it, a log of each service.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

from components.core.atomic import write_text
from components.core.errors import Cancelled, Unavailable
from components.core.exits import cancel_on, run_command
from components.core.locks import lock
from components.core.output_dir import make_private
from components.core.process import end_group, owner, quiet_environment
from components.model.base_resolver import PROJECT
from flows.orchestrator import orphaned_runs
from flows.orchestrator.prefect_api import POOL, client_settings
from flows.orchestrator.processes import RestartedProcess, end_supervisor, log_tail, running, spawn
from flows.orchestrator.server import prefect_server
from flows.orchestrator.services import STATE, State, read_state
from flows.project.workspace import Workspace, open_project
from flows.settings import Settings, read_settings
from infra.ui import approvals, login, mlflow

GRACE = 20.0  # seconds for a worker to end its runs
POLL = 0.5
CHECK = 5.0  # seconds between two checks of the workers


def up(workspace: Workspace, settings: Settings, workers: int) -> State:
    """Start the services unless they run, and wait until they answer; raise Unavailable, with the log, after the deadline."""
    home = (workspace.var / STATE).parent
    make_private(home)
    with lock(home / "up.lock", settings.server_deadline):
        if state := read_state(workspace.var):
            if state.guarded:
                return state
            print("replacing the services of an earlier release, which have no access control", file=sys.stderr)
            down(workspace, settings)
        log = home / "services.log"
        child = spawn([sys.executable, "-m", "infra.services", "supervise", str(workers)], log)
        end = time.monotonic() + 2 * settings.server_deadline  # for two servers in sequence
        while time.monotonic() < end and child.poll() is None:
            if state := read_state(workspace.var):
                return state
            time.sleep(POLL)
        end_group(child, GRACE)
    raise Unavailable(f"the services did not start; the end of {log}:\n{log_tail(log)}")


def down(workspace: Workspace, settings: Settings) -> bool:
    """End what `up` started and return whether anything ran; the next run resumes active runs. Raise Unavailable if it still runs."""
    if state := read_state(workspace.var):
        end_supervisor(state.owner, workspace.var / STATE, settings.server_deadline, workspace.var / STATE.parent)
    return state is not None


def supervise(workspace: Workspace, settings: Settings, workers: int) -> None:
    """Keep the services running until this process receives a signal."""
    home = (workspace.var / STATE).parent
    with (
        prefect_server(workspace.var, settings) as prefect,
        mlflow(workspace, settings) as address,
        approvals(workspace, prefect),
        contextlib.ExitStack() as stack,
    ):
        orphaned_runs.close(prefect, managed=not settings.prefect_api_url)  # before a worker starts another run

        def start(number: int) -> "subprocess.Popen[str]":
            command, variables = worker_command(workspace.project, prefect)
            return stack.enter_context(running(command, variables, home / f"worker-{number}.log", workspace.project))

        processes = [RestartedProcess(partial(start, number)) for number in range(workers)]
        try:
            while True:
                pids = tuple(process.child.pid for process in processes)
                write_text(home / STATE.name, json.dumps(asdict(State(owner(), prefect, address, pids, guarded=True))))
                time.sleep(CHECK)
                for process in processes:
                    process.revive()
        finally:
            (home / STATE.name).unlink(missing_ok=True)


def worker_command(project: Path, prefect: str) -> tuple[list[str], dict[str, str]]:
    """Return command and environment of a worker of the project's work pool."""
    settings = {
        **client_settings(prefect),
        "PREFECT_RUNNER_SERVER_ENABLE": "false",  # no listening port
        "PREFECT_HOME": str(project / "var/prefect"),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "components,flows",
        "PREFECT_WORKER_QUERY_SECONDS": "5",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(project),
        PROJECT: str(project),
    }
    return [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--limit", "1"], settings


def main(verb: str, workers: str = "1") -> None:
    """Run `up`, `down` or `supervise`."""
    quiet_environment()
    workspace = open_project()
    settings = read_settings(workspace.project)
    if verb == "supervise":
        cancel_on(signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
        with contextlib.suppress(Cancelled):
            supervise(workspace, settings, int(workers))
    elif verb == "up":
        print(json.dumps(asdict(up(workspace, settings, int(workers))) | {"login": login(workspace.var, settings)}))
    else:
        print(json.dumps(down(workspace, settings)))


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(*sys.argv[1:])))
