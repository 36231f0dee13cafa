"""`make ui`: serve MLflow's and Prefect's pages for `var/` on loopback, and the approval form, until Ctrl-C."""

import contextlib
import logging
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from components.core.errors import Unavailable
from components.core.exits import run_command
from components.core.ports import HOST, free_port, is_free
from components.core.process import quiet_environment
from components.mlflow_store.tracking import prepare_store
from flows.orchestrator import credential
from flows.orchestrator.guarded_app import VARIABLE
from flows.orchestrator.prefect_api import client_settings
from flows.orchestrator.processes import http_fault, listens, running
from flows.orchestrator.server import prefect_server
from flows.project.workspace import Workspace, open_workspace
from flows.settings import Settings, read_settings

PORT = 5000
ATTEMPTS = 3  # another process may take the port before the server does
LOG = "mlflow-ui.log"
POLL = 2  # seconds between two checks for a decision


def serve(workspace: Workspace, settings: Settings) -> None:
    """Start both servers, print their URLs and wait; raise Unavailable if one does not answer within the deadline."""
    with prefect_server(workspace.var, settings) as prefect, mlflow(workspace, settings) as address, approvals(workspace, prefect):
        print(f"MLflow   {address}\nPrefect  {prefect.removesuffix('/api')}\n{login(workspace.var, settings)}")
        print("Answer waiting requests under Deployments, decide. Ctrl-C ends both servers.", flush=True)
        while True:
            time.sleep(3600)


def login(var: Path, settings: Settings) -> str:
    """Return how to log in, without the credential itself; empty if both services are shared."""
    rules = [] if settings.prefect_api_url else ["Prefect expects the full text USER:PASSWORD"]
    rules += [] if settings.mlflow_uri else ["MLflow expects the user name before the colon and the password after it"]
    return f"To log in, see {var / credential.FILE}: {', '.join(rules)}." if rules else ""


@contextlib.contextmanager
def mlflow(workspace: Workspace, settings: Settings) -> Iterator[str]:
    """Run MLflow's server, unless one is configured, and yield its URL; raise Unavailable after the deadline."""
    if settings.mlflow_uri:
        yield settings.mlflow_uri
        return
    log, store = workspace.var / LOG, prepare_store(workspace.var)
    variables = {
        # Variables that `mlflow server` sets for its workers.
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_REGISTRY_STORE": store,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": (workspace.var / "mlartifacts").as_uri(),
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # no job submission
        VARIABLE: credential.make(workspace.var),
    }
    for attempt in range(ATTEMPTS):
        port = free_port(PORT if attempt == 0 else 0)
        command = [sys.executable, "-m", "flows.orchestrator.guarded_app", "mlflow.server.fastapi_app:app", "--port", str(port)]
        with running(command, variables, log) as child:
            if _answers(child, port, settings.server_deadline):
                yield f"http://{HOST}:{port}"
                return
            if child.poll() is None or is_free(port):  # else another process took the port
                raise Unavailable(f"MLflow's server did not answer on port {port} within {settings.server_deadline:.0f} s; see {log}")
    raise Unavailable(f"MLflow's server found its port taken {ATTEMPTS} times; see {log}")


def _answers(child: "subprocess.Popen[str]", port: int, seconds: float) -> bool:
    """Wait until MLflow's server answers; return False if it ended or did not answer within `seconds`."""
    end = time.monotonic() + seconds
    while child.poll() is None and time.monotonic() < end:
        if listens(psutil.Process(child.pid), port) and http_fault(f"http://{HOST}:{port}/health", timeout=2) is None:
            return True
        time.sleep(0.3)
    return False


@contextlib.contextmanager
def approvals(workspace: Workspace, prefect: str) -> Iterator[None]:
    """Serve the approval form until the block ends."""
    settings = {
        **client_settings(prefect),
        "PREFECT_HOME": str(workspace.var / "prefect"),
        "PREFECT_LOGGING_EXTRA_LOGGERS": "components,flows",
        "PREFECT_RUNNER_SERVER_ENABLE": "false",  # no listening port
        "PREFECT_RUNNER_POLL_FREQUENCY": str(POLL),
    }
    with running([sys.executable, "-m", "infra.approvals"], settings, workspace.var / "approvals.log", workspace.project):
        yield


def main() -> None:
    """Serve until Ctrl-C."""
    quiet_environment()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with contextlib.suppress(KeyboardInterrupt):
        workspace = open_workspace()
        serve(workspace, read_settings(workspace.project))


if __name__ == "__main__":
    sys.exit(run_command(main))
