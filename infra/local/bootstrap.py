"""Prepare a stack before the servers start, idempotently: databases, their tables, buckets, accounts."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from components.core.atomic import write_text
from components.core.errors import RetuneError, Unavailable
from components.core.process import tied_command
from flows.orchestrator.processes import log_tail
from infra.buckets import create_if_missing
from infra.local import postgres
from infra.local.layout import BUCKETS, PRIVATE, USER, Stack
from infra.local.services import environment, prefect_settings

ACCOUNTS = """[mlflow]
database_uri = postgresql+psycopg:///mlflow
default_permission = READ
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""  # host, user and password come from libpq's variables, the administrator from MLFLOW_AUTH_ADMIN_…
_MIGRATION = 300.0  # seconds


def prepare_databases(stack: Stack) -> None:
    """Create the tables of the installed MLflow and Prefect; raise RetuneError, with the log, if a migration fails."""
    write_text(stack.folder / "mlflow.ini", ACCOUNTS, PRIVATE)
    run_parallel(lambda: prepare_mlflow(stack), lambda: prepare_prefect(stack))


def prepare_mlflow(stack: Stack) -> None:
    """Upgrade MLflow's tables, its own before those of its accounts, and set the administrator's password from secrets.env."""
    if tables_of(stack, "mlflow") != version("mlflow"):
        settings, url = postgres.variables(stack, "mlflow"), "postgresql+psycopg:///mlflow"
        migrate(stack, "mlflow-tables", ["mlflow", "db", "upgrade", url], settings)
        migrate(stack, "mlflow-accounts", ["mlflow.server.auth", "db", "upgrade", "--url", url], settings)
        note_tables(stack, "mlflow", version("mlflow"))
    update_admin_password(stack)


def prepare_prefect(stack: Stack) -> None:
    """Upgrade Prefect's tables."""
    if tables_of(stack, "prefect") != version("prefect"):
        migrate(stack, "prefect-tables", ["prefect", "server", "database", "upgrade", "--yes"], prefect_settings(stack))
        note_tables(stack, "prefect", version("prefect"))


def migrate(stack: Stack, name: str, module: Sequence[str], settings: Mapping[str, str]) -> None:
    """Run a migration, a Python module with its arguments, and wait for its end; raise RetuneError if it fails or takes too long."""
    log = stack.log(name)
    with log.open("a", encoding="utf-8") as out:
        try:
            result = subprocess.run(
                tied_command([sys.executable, "-m", *module]),
                env=environment(stack, settings),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                timeout=_MIGRATION,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RetuneError(f"{name} took longer than {_MIGRATION:.0f} s; see {log}") from None
    if result.returncode != 0:
        raise RetuneError(f"{name} failed, nothing was started: {log_tail(log, lines=1)}; see {log}")


def tables_of(stack: Stack, name: str) -> str | None:
    """Return the release of a database's tables, which is stored as the database's comment."""
    with postgres.administer(stack) as connection:
        query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s"
        row = connection.execute(query, [name]).fetchone()
    return str(row[0]) if row and row[0] else None


def note_tables(stack: Stack, name: str, release: str) -> None:
    """Record the release of a database's tables."""
    from psycopg import sql

    with postgres.administer(stack) as connection:
        connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(release)))


def update_admin_password(stack: Stack) -> None:
    """Set MLflow's administrator password from secrets.env if it changed; MLflow itself sets it only once."""
    import sqlalchemy as sa
    from werkzeug.security import check_password_hash, generate_password_hash

    password = stack.secrets["MLFLOW_ADMIN_PASSWORD"]
    engine = sa.create_engine(stack.database("mlflow"), poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        query = sa.text("SELECT password_hash FROM users WHERE username = :name")
        current = connection.execute(query, {"name": USER}).scalar()
        if current and not check_password_hash(current, password):
            change = sa.text("UPDATE users SET password_hash = :hash WHERE username = :name")
            connection.execute(change, {"hash": generate_password_hash(password), "name": USER})


def prepare_buckets(stack: Stack, deadline: float) -> None:
    """Create missing buckets; raise Unavailable if the S3 store cannot write within `deadline` seconds."""
    from botocore.exceptions import BotoCoreError, ClientError

    client, end = s3_client(stack, "admin"), time.monotonic() + deadline
    while True:
        try:
            for name in BUCKETS:
                create_if_missing(client, name)
            return
        except (BotoCoreError, ClientError) as error:
            if time.monotonic() > end:
                raise Unavailable(f"the S3 store cannot create buckets: {error}; see {stack.log('s3')}") from None
            time.sleep(0.5)


def s3_client(stack: Stack, identity: str) -> Any:
    """Return a client of the stack's S3 store for one of its identities."""
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 3})
    keys = {"aws_access_key_id": identity, "aws_secret_access_key": stack.secrets[f"S3_{identity.upper()}_KEY"]}
    return boto3.client("s3", endpoint_url=stack.s3, region_name="us-east-1", config=config, **keys)


def run_parallel(*tasks: Callable[[], None]) -> None:
    """Run tasks in parallel, and raise the first error after all have ended."""
    errors: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(task,), daemon=True) for task in tasks]  # a signal does not wait for them
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
