"""The folder of a stack: its ports and secrets, made up once, and the file of settings that a project needs to use it.

Reads and writes ports.json, secrets.env and retune.env (mode 600), and where each service has its data and its log.
"""

import json
import math
import random
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.core.atomic import write_text
from components.core.errors import BadParams
from components.core.locks import lock
from components.core.ports import HOST, is_free

RANGE = range(20_000, 30_000)  # below what Linux hands out to outgoing connections
PORTS = ("postgres", "mlflow", "prefect", "s3", "s3_grpc", "master", "master_grpc", "volume", "volume_grpc", "filer", "filer_grpc")
DATABASES = ("mlflow", "prefect", "retune")  # each with an owner of the same name
BUCKETS = ("mlflow", "retune")  # each with a key of the same name
SECRETS = (
    "POSTGRES_PASSWORD",  # of the administrator of databases, who is used to make them and for nothing else
    *(f"{name.upper()}_DATABASE_PASSWORD" for name in DATABASES),
    "S3_ADMIN_KEY",
    *(f"S3_{name.upper()}_KEY" for name in BUCKETS),
    "MLFLOW_ADMIN_PASSWORD",
    "MLFLOW_FLASK_KEY",
    "PREFECT_PASSWORD",
)
USER = "retune"  # to MLflow's and Prefect's servers
MIGRATE_TO = "RETUNE_MLFLOW_DATABASE"  # what `retune migrate` reads: MLflow's own database, which no project needs otherwise


@dataclass(frozen=True)
class Stack:
    """A stack in its folder; the ports are its own for good, so that a project's settings stay true."""

    folder: Path
    ports: Mapping[str, int]
    secrets: Mapping[str, str]

    @property
    def mlflow(self) -> str:
        """The address of MLflow's server."""
        return f"http://{HOST}:{self.ports['mlflow']}"

    @property
    def prefect(self) -> str:
        """The address of Prefect's API."""
        return f"http://{HOST}:{self.ports['prefect']}/api"

    @property
    def s3(self) -> str:
        """The address of the S3 store."""
        return f"http://{HOST}:{self.ports['s3']}"

    def database(self, name: str) -> str:
        """Return SQLAlchemy's address of a database, as its owner."""
        password = self.secrets[f"{name.upper()}_DATABASE_PASSWORD"]
        return f"postgresql+psycopg://{name}:{password}@{HOST}:{self.ports['postgres']}/{name}"

    def log(self, service: str) -> Path:
        """Return where a service writes what it says."""
        return self.folder / "logs" / f"{service}.log"

    def settings(self) -> dict[str, str]:
        """Return what a project must know to use the stack."""
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
        """Return who may do what in the S3 store, as it reads it: each bucket is its namesake's, and the administrator's."""
        of_bucket = ("Read", "Write", "List", "Tagging")
        actions = {"admin": ["Admin"]} | {name: [f"{action}:{name}" for action in of_bucket] for name in BUCKETS}
        known = [
            {"name": name, "credentials": [{"accessKey": name, "secretKey": self.secrets[f"S3_{name.upper()}_KEY"]}], "actions": allowed}
            for name, allowed in actions.items()
        ]
        return json.dumps({"identities": known}, indent=2)


def make_stack(folder: Path) -> Stack:
    """Make the folder of a stack, or complete it: what is there stays, and a secret whose line was deleted is made up anew.

    Raises:
        BadParams: the folder belongs to something else.
    """
    folder = folder.resolve()
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "ports.json").exists():
        raise BadParams(f"{folder} holds something, but no stack; name a new folder")
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    with lock(folder / "lock", math.inf):  # two that make one stack would each know other secrets
        if not (folder / "ports.json").exists():
            write_private(folder / "ports.json", json.dumps(free_ports(), indent=2))
        known = read_variables(folder / "secrets.env")
        made = {name: known.get(name) or secrets.token_hex(24) for name in SECRETS}
        stack = Stack(folder, json.loads((folder / "ports.json").read_text(encoding="utf-8")), made)
        write_private(folder / "secrets.env", lines(made | {MIGRATE_TO: stack.database("mlflow")}))
        write_private(folder / "retune.env", lines(stack.settings()))
        write_private(folder / "s3.json", stack.identities())
    return stack


def open_stack(folder: Path, whole: bool = True) -> Stack:
    """Return the stack in a folder; not `whole`, a secret may be missing, as it may be to whoever only ends the stack.

    Raises:
        BadParams: there is none, or a secret is missing.
    """
    folder = folder.resolve()
    try:
        ports = json.loads((folder / "ports.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BadParams(f"{folder} holds no stack; `python -m infra.local up {folder}` makes one") from None
    known = read_variables(folder / "secrets.env")
    if whole and (missing := [name for name in SECRETS if not known.get(name)]):
        mends = f"`python -m infra.local down {folder}`, then `up`, which makes up what is missing"
        raise BadParams(f"{folder / 'secrets.env'} lacks {', '.join(missing)}: {mends}")
    return Stack(folder, ports, {name: known.get(name, "") for name in SECRETS})


def free_ports() -> dict[str, int]:
    """Return a free port for each listener; somewhere else than for another stack, which may not be running now."""
    start = random.SystemRandom().randrange(len(RANGE))
    candidates = (RANGE[(start + offset) % len(RANGE)] for offset in range(len(RANGE)))
    return dict(zip(PORTS, (port for port in candidates if is_free(port)), strict=False))


def lines(variables: Mapping[str, str]) -> str:
    """Return variables as the lines of a file that shells and settings read."""
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def read_variables(path: Path) -> dict[str, str]:
    """Read such a file; nothing where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    write_text(path, text, mode=0o600)
