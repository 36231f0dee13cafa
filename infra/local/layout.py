"""The folder of a stack: its ports and secrets, created once, and the settings file for projects that use it.

Reads and writes ports.json, secrets.env and retune.env (mode 600), and defines the path of each service's log.
"""

import json
import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from components.core.atomic import write_text
from components.core.errors import BadParams
from components.core.locks import lock
from components.core.ports import HOST, is_free
from infra.passwords import IDENTITIES, identities

RANGE = range(20_000, 30_000)  # below Linux's range for outgoing connections
PORTS = ("postgres", "mlflow", "prefect", "s3", "s3_grpc", "master", "master_grpc", "volume", "volume_grpc", "filer", "filer_grpc")
DATABASES = ("mlflow", "prefect", "retune")  # each with an owner of the same name
BUCKETS = ("mlflow", "retune")  # each with a key of the same name
SECRETS = (
    "POSTGRES_PASSWORD",  # of the database administrator, used only to create the databases
    *(f"{name.upper()}_DATABASE_PASSWORD" for name in DATABASES),
    "S3_ADMIN_KEY",
    *(f"S3_{name.upper()}_KEY" for name in BUCKETS),
    "MLFLOW_ADMIN_PASSWORD",
    "MLFLOW_FLASK_KEY",
    "PREFECT_PASSWORD",
)
PRIVATE = 0o600  # mode of the files with secrets
USER = "retune"  # the account at MLflow's and Prefect's servers
MIGRATE_TO = "RETUNE_MLFLOW_DATABASE"  # for `retune migrate` only: MLflow's own database


@dataclass(frozen=True)
class Stack:
    """A stack in its folder; its ports never change, so that a project's settings stay valid."""

    folder: Path
    ports: Mapping[str, int]
    secrets: Mapping[str, str]

    @property
    def mlflow(self) -> str:
        """The URL of MLflow's server."""
        return f"http://{HOST}:{self.ports['mlflow']}"

    @property
    def prefect(self) -> str:
        """The URL of Prefect's API."""
        return f"http://{HOST}:{self.ports['prefect']}/api"

    @property
    def s3(self) -> str:
        """The URL of the S3 store."""
        return f"http://{HOST}:{self.ports['s3']}"

    def database(self, name: str) -> str:
        """Return the SQLAlchemy URL of a database, for its owner."""
        password = self.secrets[f"{name.upper()}_DATABASE_PASSWORD"]
        return f"postgresql+psycopg://{name}:{password}@{HOST}:{self.ports['postgres']}/{name}"

    def log(self, service: str) -> Path:
        """Return the path of a service's log."""
        return self.folder / "logs" / f"{service}.log"

    def settings(self) -> dict[str, str]:
        """Return the settings of a project that uses the stack."""
        return {
            "RETUNE_DATABASE": self.database("retune"),
            "RETUNE_MLFLOW_URI": self.mlflow,
            "RETUNE_MLFLOW_USER": USER,
            "RETUNE_MLFLOW_PASSWORD": self.secrets["MLFLOW_ADMIN_PASSWORD"],
            "RETUNE_PREFECT_API_URL": self.prefect,
            "RETUNE_PREFECT_AUTH": f"{USER}:{self.secrets['PREFECT_PASSWORD']}",
            "RETUNE_DVC_REMOTE": "s3://retune/dvc",
            "RETUNE_S3_ENDPOINT": self.s3,
            "RETUNE_S3_ACCESS_KEY": "retune",
            "RETUNE_S3_SECRET_KEY": self.secrets["S3_RETUNE_KEY"],
        }

    def identities(self) -> str:
        """Return the S3 permissions as SeaweedFS reads them."""
        return json.dumps({"identities": identities({name: self.secrets[f"S3_{name.upper()}_KEY"] for name in IDENTITIES})}, indent=2)


def make_stack(folder: Path) -> Stack:
    """Create or complete the folder of a stack: content is kept, missing secrets are generated; raise BadParams for other content."""
    folder = folder.resolve()
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "ports.json").exists():
        raise BadParams(f"{folder} is not empty and not a stack; choose a new folder")
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    with lock(folder / "lock", 10.0):  # two processes must not generate different secrets
        if not (folder / "ports.json").exists():
            write_text(folder / "ports.json", json.dumps(free_ports(), indent=2), PRIVATE)
        known = read_variables(folder / "secrets.env")
        values = {name: known.get(name) or secrets.token_hex(24) for name in SECRETS}
        stack = Stack(folder, json.loads((folder / "ports.json").read_text(encoding="utf-8")), values)
        write_text(folder / "secrets.env", lines(values | {MIGRATE_TO: stack.database("mlflow")}), PRIVATE)
        write_text(folder / "retune.env", lines(stack.settings()), PRIVATE)
        write_text(folder / "s3.json", stack.identities(), PRIVATE)
    return stack


def open_stack(folder: Path, whole: bool = True) -> Stack:
    """Return the stack in a folder, with `whole=False` even without secrets, to end it; raise BadParams if something is missing."""
    folder = folder.resolve()
    try:
        ports = json.loads((folder / "ports.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BadParams(f"{folder} is not a stack; create one with `python -m infra.local up {folder}`") from None
    known = read_variables(folder / "secrets.env")
    if whole and (missing := [name for name in SECRETS if not known.get(name)]):
        fix = f"run `python -m infra.local down {folder}`, then `up`, which generates missing secrets"
        raise BadParams(f"{folder / 'secrets.env'} lacks {', '.join(missing)}: {fix}")
    return Stack(folder, ports, {name: known.get(name, "") for name in SECRETS})


def free_ports() -> dict[str, int]:
    """Return a free port for each service, from a random start, so that stacks that are not running do not collide."""
    start = random.SystemRandom().randrange(len(RANGE))
    candidates = (RANGE[(start + offset) % len(RANGE)] for offset in range(len(RANGE)))
    return dict(zip(PORTS, (port for port in candidates if is_free(port)), strict=False))


def lines(variables: Mapping[str, str]) -> str:
    """Format variables as lines of a file for shells and settings."""
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def read_variables(path: Path) -> dict[str, str]:
    """Read a file of variables; empty if it does not exist."""
    return {name: value for name, value in dotenv_values(path, interpolate=False).items() if value is not None}
