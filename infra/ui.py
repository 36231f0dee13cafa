"""`make ui`: MLflow's and Prefect's pages on loopback over the embedded state, and the form for approvals, until Ctrl-C."""

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from components.core.errors import Unavailable
from components.core.exits import run_command
from components.core.output_dir import open_log
from components.core.ports import HOST, free_port
from components.core.process import end_group, quiet_environment, tied_command
from components.mlflow_store.tracking import prepare_store
from flows.orchestrator import credential
from flows.orchestrator.guarded_app import VARIABLE
from flows.orchestrator.prefect_api import client_settings
from flows.orchestrator.server import listens, prefect_server
from flows.project.workspace import Workspace, open_workspace
from flows.settings import Settings, read_settings

PORT = 5000
ATTEMPTS = 3  # another process may take a port between our look at it and the server's
LOG = "mlflow-ui.log"
POLL = 2  # seconds between two looks for a decision


def serve(workspace: Workspace, settings: Settings) -> None:
    """Start both servers, print their addresses and wait.

    Raises:
        Unavailable: a server did not answer within the deadline.
    """
    with prefect_server(workspace.var, settings) as prefect, mlflow(workspace, settings) as address, approvals(workspace, prefect):
        print(f"MLflow   {address}\nPrefect  {prefect.removesuffix('/api')}", flush=True)
        print(login(workspace.var, settings), flush=True)
        print("What waits for a person is answered under Deployments, decide. Ctrl-C ends both.", flush=True)
        while True:
            time.sleep(3600)


def login(var: Path, settings: Settings) -> str:
    """Say how a person logs in; the credential itself is in a file that only its owner may read. Nothing where both are shared services."""
    asks = [] if settings.prefect_api_url else ["Prefect asks for the whole line"]
    asks += [] if settings.mlflow_uri else ["MLflow asks for the user name before its colon and the password behind it"]
    return f"To log in, see {var / credential.FILE}: {', '.join(asks)}." if asks else ""


@contextlib.contextmanager
def mlflow(workspace: Workspace, settings: Settings) -> Iterator[str]:
    """Run MLflow's server over the embedded store and give its address; where the settings name a server, give that one's.

    Raises:
        Unavailable: it did not answer within the deadline.
    """
    if settings.mlflow_uri:
        yield settings.mlflow_uri
        return
    for attempt in range(ATTEMPTS):
        with _mlflow(workspace, settings, free_port(PORT if attempt == 0 else 0)) as port:
            if port is not None:
                yield f"http://{HOST}:{port}"
                return
    raise Unavailable(f"MLflow's server found its port taken {ATTEMPTS} times; see {workspace.var / LOG}")


@contextlib.contextmanager
def _mlflow(workspace: Workspace, settings: Settings, port: int) -> Iterator[int | None]:
    """Run MLflow's server on a port and give that once it answers; None where another process took the port before it did."""
    log = workspace.var / LOG
    store = prepare_store(workspace.var)
    command = [sys.executable, "-m", "flows.orchestrator.guarded_app", "mlflow.server.fastapi_app:app", "--port", str(port)]
    variables = {
        # What `mlflow server` hands to its workers.
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_REGISTRY_STORE": store,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": (workspace.var / "mlartifacts").as_uri(),
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # nobody submits jobs to it
        VARIABLE: credential.make(workspace.var),
    }
    with running(command, variables, log) as child:
        end = time.monotonic() + settings.server_deadline
        while not (child.poll() is None and listens(psutil.Process(child.pid), port) and answers(port)):
            if child.poll() is not None and free_port(port) != port:
                yield None
                return
            if child.poll() is not None or time.monotonic() > end:
                raise Unavailable(f"MLflow's server did not answer on port {port} within {settings.server_deadline:.0f} s; see {log}")
            time.sleep(0.3)
        yield port


@contextlib.contextmanager
def approvals(workspace: Workspace, prefect: str) -> Iterator[None]:
    """Serve the form that answers what waits for a person, until the block ends."""
    settings = {
        **client_settings(prefect),
        "PREFECT_HOME": str(workspace.var / "prefect"),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "components,flows",
        "PREFECT_RUNNER_SERVER_ENABLE": "false",  # it listens nowhere
        "PREFECT_RUNNER_POLL_FREQUENCY": str(POLL),
    }
    with running([sys.executable, "-m", "infra.approvals"], settings, workspace.var / "approvals.log", workspace.project):
        yield


@contextlib.contextmanager
def running(command: list[str], settings: dict[str, str], log: Path, folder: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run a command with `settings` in its environment, in a session of its own and tied to the life of this process."""
    with os.fdopen(open_log(log), "a", encoding="utf-8") as out:
        child = subprocess.Popen(
            tied_command(command),
            cwd=folder,
            env=os.environ | settings,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            text=True,
        )
    try:
        yield child
    finally:
        end_group(child, grace=5.0)


def answers(port: int) -> bool:
    """Say whether MLflow answers on `port`."""
    try:
        return httpx.get(f"http://{HOST}:{port}/health", timeout=2).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def main() -> None:
    """Serve until Ctrl-C."""
    quiet_environment()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with contextlib.suppress(KeyboardInterrupt):
        workspace = open_workspace()
        serve(workspace, read_settings(workspace.project))


if __name__ == "__main__":
    sys.exit(run_command(main))
