"""What a stack runs: for each service its command, its environment, and how it is known to be well.

No secret stands in a command, where `ps` would show it: they are in files and variables of the one process that needs them.
"""

import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from components.core.ports import HOST
from components.core.process import QUIET
from flows.orchestrator.prefect_api import POOL, know, post
from flows.orchestrator.server import server_command, server_settings
from infra.local import postgres
from infra.local.layout import USER, Stack
from infra.services import worker_command

MARK = "RETUNE_STACK"  # in the environment of all that a stack has started: its folder
OURS = ("RETUNE_", "PREFECT_", "MLFLOW_", "AWS_", "PG")  # what a shell says of another stack must not reach this one


@dataclass(frozen=True)
class Service:
    """A process that is started again whenever it ends."""

    name: str
    command: list[str]
    settings: Mapping[str, str]
    well: Callable[[], bool]
    folder: Path
    account: Mapping[str, Any] = field(default_factory=dict)
    grace: float = 10.0  # seconds that it has to end by itself


def environment(stack: Stack, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process of the stack."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    quiet = {name: value for name, value in QUIET.items() if name not in kept}  # telemetry stays off
    return kept | quiet | {"PATH": path, MARK: str(stack.folder)} | dict(settings)


def database_service(stack: Stack) -> Service:
    """PostgreSQL."""
    return Service(
        "postgres", postgres.command(stack), {}, lambda: postgres.answers(stack), Path("/"), account=postgres.account(), grace=30.0
    )


def store_service(stack: Stack) -> Service:
    """SeaweedFS: its S3 gateway asks for keys; master, volume server and filer behind it answer whoever is on this machine."""
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
        "volume.preStopSeconds": 0,  # nobody else has to hear of it first
        "volume.max": 0,  # as many as the disk has room for
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
    # The gateway is well before the volume server is.
    # It flushes at each write, and takes a quarter of a minute to say goodbye to itself.
    return Service("s3", command, {}, lambda: answers(f"{stack.s3}/healthz") and is_open(ports["volume"]), data, grace=5.0)


def mlflow_service(stack: Stack) -> Service:
    """MLflow's server: accounts, runs and versions in PostgreSQL, artifacts handed through into the S3 store."""
    destination = ["--serve-artifacts", "--artifacts-destination", "s3://mlflow/artifacts"]
    place = ["--host", HOST, "--port", str(stack.ports["mlflow"]), "--workers", "2"]
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", *place]
    command += ["--backend-store-uri", "postgresql+psycopg:///mlflow", *destination]
    settings = postgres.variables(stack, "mlflow") | {
        "MLFLOW_AUTH_CONFIG_PATH": str(stack.folder / "mlflow.ini"),
        "MLFLOW_AUTH_ADMIN_USERNAME": USER,
        "MLFLOW_AUTH_ADMIN_PASSWORD": stack.secrets["MLFLOW_ADMIN_PASSWORD"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": stack.secrets["MLFLOW_FLASK_KEY"],
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # nobody submits jobs to it
        "MLFLOW_S3_ENDPOINT_URL": stack.s3,
        "AWS_ACCESS_KEY_ID": "mlflow",
        "AWS_SECRET_ACCESS_KEY": stack.secrets["S3_MLFLOW_KEY"],
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    return Service("mlflow", command, settings, lambda: answers(f"{stack.mlflow}/health"), stack.folder)


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
    """Prefect's server, its state in PostgreSQL."""
    who = (USER, stack.secrets["PREFECT_PASSWORD"])
    command = server_command(stack.ports["prefect"])
    return Service("prefect", command, prefect_settings(stack), lambda: answers(f"{stack.prefect}/health", who), stack.folder)


def worker_service(stack: Stack, project: Path, number: int) -> Service:
    """A worker, which runs what is deployed for the project, one run at a time."""
    command, settings = worker_command(project, stack.prefect)
    settings |= stack.settings() | {"PREFECT_API_AUTH_STRING": f"{USER}:{stack.secrets['PREFECT_PASSWORD']}"}
    name = f"worker-{number}"
    return Service(name, [*command, "--name", name], settings, lambda: is_online(stack, name), project, grace=20.0)


def is_online(stack: Stack, worker: str) -> bool:
    """Say whether Prefect's server has heard of a worker lately."""
    known = ask(stack, f"/work_pools/{POOL}/workers/filter", {}) or []
    return any(one["name"] == worker and one["status"] == "ONLINE" for one in known)


def ask(stack: Stack, path: str, body: object) -> Any:
    """Ask Prefect's server; None where it does not answer, or has no such thing."""
    know(stack.prefect, f"{USER}:{stack.secrets['PREFECT_PASSWORD']}")
    try:
        return post(f"{stack.prefect}{path}", body, timeout=5).json()
    except httpx.HTTPError:
        return None


def answers(url: str, who: tuple[str, str] | None = None) -> bool:
    """Say whether an address answers with 200."""
    try:
        return httpx.get(url, auth=who, timeout=5).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def is_open(port: int) -> bool:
    """Say whether somebody listens on a port."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((HOST, port)) == 0


def started_by(stack: Stack) -> list[psutil.Process]:
    """Return every process that the stack has started and that still runs, also what a service or a worker has started in turn."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == str(stack.folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found
