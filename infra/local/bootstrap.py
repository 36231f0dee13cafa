"""What is done once before the servers start, and can be repeated: databases, their tables, buckets, accounts."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from components.core.errors import RetuneError, Unavailable
from components.core.process import tied_command
from flows.orchestrator.processes import log_tail
from infra.local import postgres
from infra.local.layout import BUCKETS, USER, Stack, write_private
from infra.local.services import environment, prefect_settings

ACCOUNTS = """[mlflow]
database_uri = postgresql+psycopg:///mlflow
default_permission = READ
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""  # host, user and password are libpq's variables, the administrator MLFLOW_AUTH_ADMIN_…
_MIGRATION = 300.0  # seconds


def prepare_databases(stack: Stack) -> None:
    """Make roles, databases and the tables of MLflow and Prefect, of the releases that are installed; PostgreSQL must answer.

    Raises:
        RetuneError: a migration failed; the message names its log.
    """
    postgres.make_databases(stack)
    write_private(stack.folder / "mlflow.ini", ACCOUNTS)
    together(lambda: prepare_mlflow(stack), lambda: prepare_prefect(stack))


def prepare_mlflow(stack: Stack) -> None:
    """Bring MLflow's tables up to date, its own before those of its accounts, and give the administrator the password of secrets.env."""
    settings, mlflow = postgres.variables(stack, "mlflow"), [sys.executable, "-m", "mlflow"]
    if tables_of(stack, "mlflow") != version("mlflow"):
        address = "postgresql+psycopg:///mlflow"
        migrate(stack, "mlflow-tables", [*mlflow, "db", "upgrade", address], settings)
        accounts = [sys.executable, "-m", "mlflow.server.auth", "db", "upgrade", "--url", address]
        migrate(stack, "mlflow-accounts", accounts, settings)
        note_tables(stack, "mlflow", version("mlflow"))
    set_password(stack)


def prepare_prefect(stack: Stack) -> None:
    """Bring Prefect's tables up to date."""
    if tables_of(stack, "prefect") != version("prefect"):
        command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
        migrate(stack, "prefect-tables", command, prefect_settings(stack))
        note_tables(stack, "prefect", version("prefect"))


def migrate(stack: Stack, name: str, command: Sequence[str], settings: Mapping[str, str]) -> None:
    """Run a migration to its end.

    Raises:
        RetuneError: it failed, or took too long.
    """
    log = stack.log(name)
    with log.open("a", encoding="utf-8") as out:
        try:
            done = subprocess.run(
                tied_command(command),
                env=environment(stack, settings),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                timeout=_MIGRATION,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RetuneError(f"{name} took longer than {_MIGRATION:.0f} s; see {log}") from None
    if done.returncode != 0:
        raise RetuneError(f"{name} failed, nothing was started: {log_tail(log, lines=1)}; see {log}")


def tables_of(stack: Stack, name: str) -> str | None:
    """Return the release that a database's tables were made for; it is kept as the database's own comment."""
    with postgres.administer(stack) as connection:
        query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s"
        found = connection.execute(query, [name]).fetchone()
    return str(found[0]) if found and found[0] else None


def note_tables(stack: Stack, name: str, release: str) -> None:
    """Keep which release a database's tables are of."""
    from psycopg import sql

    with postgres.administer(stack) as connection:
        connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), sql.Literal(release)))


def set_password(stack: Stack) -> None:
    """Give MLflow's administrator the password of secrets.env where it has another: MLflow itself sets it only once."""
    import sqlalchemy as sa
    from werkzeug.security import check_password_hash, generate_password_hash

    wanted = stack.secrets["MLFLOW_ADMIN_PASSWORD"]
    engine = sa.create_engine(stack.database("mlflow"), poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        query = sa.text("SELECT password_hash FROM users WHERE username = :name")
        known = connection.execute(query, {"name": USER}).scalar()
        if known and not check_password_hash(known, wanted):
            change = sa.text("UPDATE users SET password_hash = :hash WHERE username = :name")
            connection.execute(change, {"hash": generate_password_hash(wanted), "name": USER})


def prepare_buckets(stack: Stack, deadline: float) -> None:
    """Make the buckets that are missing; the S3 store must answer, and may need some seconds more until it can write.

    Raises:
        Unavailable: it cannot.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    client, end = s3_client(stack, "admin"), time.monotonic() + deadline
    while True:
        try:
            there = {one["Name"] for one in client.list_buckets()["Buckets"]}
            for name in BUCKETS:
                if name not in there:
                    client.create_bucket(Bucket=name)
            return
        except (BotoCoreError, ClientError) as error:
            if time.monotonic() > end:
                raise Unavailable(f"the S3 store makes no buckets: {error}; see {stack.log('s3')}") from None
            time.sleep(0.5)


def s3_client(stack: Stack, who: str) -> Any:
    """Return a client of the stack's S3 store, as one of its identities."""
    import boto3
    from botocore.config import Config

    config = Config(connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 3})
    keys = {"aws_access_key_id": who, "aws_secret_access_key": stack.secrets[f"S3_{who.upper()}_KEY"]}
    return boto3.client("s3", endpoint_url=stack.s3, region_name="us-east-1", config=config, **keys)


def together(*tasks: Callable[[], None]) -> None:
    """Do several things at once, and raise the first error once all have ended."""
    errors: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
