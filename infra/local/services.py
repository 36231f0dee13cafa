"""The services of a stack: command, environment and health check of each.

No command contains a secret, since `ps` would show it: secrets are in files and in the variables of the process that needs them.
"""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil

from components.core.ports import HOST, is_free
from components.core.process import QUIET
from flows.orchestrator.prefect_api import POOL, post, use_credential
from flows.orchestrator.processes import http_fault
from flows.orchestrator.server import server_command, server_settings
from infra.local import postgres
from infra.local.layout import USER, Stack
from infra.services import worker_command

MARK = "RETUNE_STACK"  # in the environment of all processes of a stack: its folder
OURS = ("RETUNE_", "PREFECT_", "MLFLOW_", "AWS_", "PG")  # variables of the shell, perhaps for another stack, that services do not inherit


@dataclass(frozen=True)
class Service:
    """A process that is restarted whenever it ends."""

    name: str
    command: list[str]
    settings: Mapping[str, str]
    healthy: Callable[[], bool]
    folder: Path
    account: Mapping[str, Any] = field(default_factory=dict)
    grace: float = 10.0  # seconds to end by itself


def environment(stack: Stack, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process of the stack."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    quiet = {name: value for name, value in QUIET.items() if name not in inherited}  # telemetry stays off
    return inherited | quiet | {"PATH": path, MARK: str(stack.folder)} | dict(settings)


def database_service(stack: Stack) -> Service:
    """PostgreSQL."""
    return Service(
        "postgres", postgres.command(stack), {}, lambda: postgres.answers(stack), Path("/"), account=postgres.account(), grace=30.0
    )


def store_service(stack: Stack) -> Service:
    """SeaweedFS: its S3 gateway requires keys; master, volume server and filer behind it serve any local client."""
    data, ports = stack.folder / "s3", stack.ports
    options = {
        "dir": data,
        "ip": HOST,
        "ip.bind": HOST,
        "master.port": ports["master"],
        "master.port.grpc": ports["master_grpc"],
        "master.volumeSizeLimitMB": 1024,
        "master.telemetry": "false",
        "volume.port": ports["volume"],
        "volume.port.grpc": ports["volume_grpc"],
        "volume.preStopSeconds": 0,  # no other servers to notify
        "volume.max": 0,  # limited by disk space only
        "filer.port": ports["filer"],
        "filer.port.grpc": ports["filer_grpc"],
        "s3.port": ports["s3"],
        "s3.port.grpc": ports["s3_grpc"],
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.iam": "false",
        "s3.config": stack.folder / "s3.json",
    }
    command = ["weed", "-logtostderr=true", "server", "-filer", "-s3", *(f"-{name}={value}" for name, value in options.items())]
    # The gateway is ready before the volume server.
    # Each write is flushed, and a clean shutdown takes 15 s, so the grace period is short.
    return Service("s3", command, {}, lambda: http_fault(f"{stack.s3}/healthz") is None and not is_free(ports["volume"]), data, grace=5.0)


def mlflow_service(stack: Stack) -> Service:
    """MLflow's server: accounts, runs and versions in PostgreSQL; it proxies artifacts to the S3 store."""
    destination = ["--serve-artifacts", "--artifacts-destination", "s3://mlflow/artifacts"]
    listen = ["--host", HOST, "--port", str(stack.ports["mlflow"]), "--workers", "2"]
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", *listen]
    command += ["--backend-store-uri", "postgresql+psycopg:///mlflow", *destination]
    settings = postgres.variables(stack, "mlflow") | {
        "MLFLOW_AUTH_CONFIG_PATH": str(stack.folder / "mlflow.ini"),
        "MLFLOW_AUTH_ADMIN_USERNAME": USER,
        "MLFLOW_AUTH_ADMIN_PASSWORD": stack.secrets["MLFLOW_ADMIN_PASSWORD"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": stack.secrets["MLFLOW_FLASK_KEY"],
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # no job submission
        "MLFLOW_S3_ENDPOINT_URL": stack.s3,
        "AWS_ACCESS_KEY_ID": "mlflow",
        "AWS_SECRET_ACCESS_KEY": stack.secrets["S3_MLFLOW_KEY"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    return Service("mlflow", command, settings, lambda: http_fault(f"{stack.mlflow}/health") is None, stack.folder)


def prefect_settings(stack: Stack) -> dict[str, str]:
    """Return the variables of Prefect's server."""
    shared = server_settings(stack.folder / "prefect", stack.ports["prefect"], f"{USER}:{stack.secrets['PREFECT_PASSWORD']}")
    return shared | {
        "PREFECT_SERVER_DATABASE_DRIVER": "postgresql+asyncpg",
        "PREFECT_SERVER_DATABASE_HOST": HOST,
        "PREFECT_SERVER_DATABASE_PORT": str(stack.ports["postgres"]),
        "PREFECT_SERVER_DATABASE_NAME": "prefect",
        "PREFECT_SERVER_DATABASE_USER": "prefect",
        "PREFECT_SERVER_DATABASE_PASSWORD": stack.secrets["PREFECT_DATABASE_PASSWORD"],
        "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }


def prefect_service(stack: Stack) -> Service:
    """Prefect's server with its state in PostgreSQL."""
    credential = (USER, stack.secrets["PREFECT_PASSWORD"])
    command = server_command(stack.ports["prefect"])
    health = partial(http_fault, f"{stack.prefect}/health", credential)
    return Service("prefect", command, prefect_settings(stack), lambda: health() is None, stack.folder)


def worker_service(stack: Stack, project: Path, number: int) -> Service:
    """A worker that runs the project's deployments, one run at a time."""
    command, settings = worker_command(project, stack.prefect)
    settings |= stack.settings() | {"PREFECT_API_AUTH_STRING": f"{USER}:{stack.secrets['PREFECT_PASSWORD']}"}
    name = f"worker-{number}"
    return Service(name, [*command, "--name", name], settings, lambda: is_online(stack, name), project, grace=20.0)


def is_online(stack: Stack, worker: str) -> bool:
    """Return whether a worker has a recent heartbeat at Prefect's server."""
    use_credential(stack.prefect, f"{USER}:{stack.secrets['PREFECT_PASSWORD']}")
    with suppress(httpx.HTTPError):
        workers = post(f"{stack.prefect}/work_pools/{POOL}/workers/filter", {}, timeout=5).json()
        return any(entry["name"] == worker and entry["status"] == "ONLINE" for entry in workers)
    return False


def started_by(stack: Stack) -> list[psutil.Process]:
    """Return all running processes of the stack, including those that its services and workers started."""
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(stack.folder) and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
    return processes
