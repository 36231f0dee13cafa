"""PostgreSQL from the system's programs: a cluster in the stack's folder, with a database and an owner per service.

PostgreSQL refuses to run as root, so root runs it as the system user `postgres`.
"""

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Any

from components.core.atomic import write_text
from components.core.errors import BadParams, NotFound, RetuneError, Unavailable
from components.core.ports import HOST
from infra.local.layout import DATABASES, PRIVATE, Stack

ADMINISTRATOR = "postgres"
RELEASES = Path("/usr/lib/postgresql")  # Debian's folder of releases


def program(name: str) -> str:
    """Return the path of a PostgreSQL program, in Debian's newest release or on PATH; raise NotFound if it is not installed."""
    releases = sorted((int(path.name), path) for path in RELEASES.glob("*") if path.name.isdigit() and (path / "bin" / name).exists())
    path = shutil.which(name) if name != "postgres" else None
    if releases:  # server and tools must have the same release
        path = str(releases[-1][1] / "bin" / name)
    if not path and (pg_ctl := shutil.which("pg_ctl")):
        path = shutil.which(name, path=str(Path(pg_ctl).resolve().parent))
    if not path:
        raise NotFound(f"PostgreSQL's program {name} is neither on PATH nor in {RELEASES}: install it, e.g. `apt-get install postgresql`")
    return path


def account() -> dict[str, Any]:
    """Return the account of PostgreSQL's programs for subprocess, `postgres` for root; raise NotFound if that does not exist."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam(ADMINISTRATOR)
    except KeyError:
        raise NotFound("PostgreSQL does not run as root: expected a system user `postgres`, found none") from None
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def home(stack: Stack) -> Path:
    """Return PostgreSQL's folder."""
    return stack.folder / "postgres"


def make_cluster(stack: Stack) -> None:
    """Create the cluster unless it exists; replace one whose creation was interrupted.

    Raises:
        BadParams: PostgreSQL's user cannot enter the folder.
        RetuneError: `initdb` failed.
    """
    folder, user = home(stack), account()
    if (folder / "data").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    password = folder / "password"
    write_text(password, stack.secrets["POSTGRES_PASSWORD"], PRIVATE)
    for path in (folder, password):
        os.chown(path, user.get("user", -1), user.get("group", -1))
    if user and subprocess.run(["test", "-x", str(folder)], cwd="/", check=False, **user).returncode != 0:  # e.g. in root's home
        raise BadParams(f"the user {ADMINISTRATOR}, which runs PostgreSQL for root, cannot enter {folder}; choose an accessible folder")
    arguments = ["--auth=scram-sha-256", "--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8", f"--username={ADMINISTRATOR}"]
    command = [program("initdb"), *arguments, f"--pwfile={password}", f"--pgdata={folder / 'partial'}"]
    result = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, **user)
    password.unlink()
    if result.returncode != 0:
        raise RetuneError(f"initdb could not create {folder}: {' '.join(result.stderr.strip().splitlines()[-3:])}")
    (folder / "partial").rename(folder / "data")


def command(stack: Stack) -> list[str]:
    """Return the server command of the cluster, on loopback only."""
    settings = {
        "listen_addresses": HOST,
        "port": str(stack.ports["postgres"]),
        "unix_socket_directories": "",
        "max_connections": "200",
        "password_encryption": "scram-sha-256",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return [program("postgres"), "-D", str(home(stack) / "data"), *options]


def variables(stack: Stack, database: str) -> dict[str, str]:
    """Return libpq's variables for a database and its owner of the same name, so that no command contains a password."""
    port, password = str(stack.ports["postgres"]), stack.secrets[f"{database.upper()}_DATABASE_PASSWORD"]
    return {"PGHOST": HOST, "PGPORT": port, "PGUSER": database, "PGPASSWORD": password, "PGDATABASE": database, "PGCONNECT_TIMEOUT": "5"}


def answers(stack: Stack) -> bool:
    """Return whether PostgreSQL answers; raise BadParams if it rejects the administrator's password."""
    import psycopg

    try:
        administer(stack).close()
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            raise BadParams(
                f"PostgreSQL rejects POSTGRES_PASSWORD of {stack.folder / 'secrets.env'}: the file does not match the cluster"
            ) from None
        return False
    return True


def administer(stack: Stack) -> Any:
    """Return the administrator's connection in autocommit mode."""
    import psycopg
    from psycopg.conninfo import make_conninfo

    conninfo = make_conninfo(host=HOST, port=stack.ports["postgres"], user=ADMINISTRATOR, dbname=ADMINISTRATOR, connect_timeout=5)
    return psycopg.connect(conninfo, password=stack.secrets["POSTGRES_PASSWORD"], autocommit=True)


def make_databases(stack: Stack) -> None:
    """Create each service's role and database if missing, and set its password from secrets.env.

    Passwords are sent as hashes, since the server's log may contain failed statements.

    Raises:
        Unavailable: the connection to PostgreSQL was lost.
    """
    import psycopg
    from psycopg import sql

    try:
        with administer(stack) as connection:
            for name in DATABASES:
                role, password = sql.Identifier(name), stack.secrets[f"{name.upper()}_DATABASE_PASSWORD"]
                if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone():
                    connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
                hashed = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
                connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(hashed)))
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                    connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
                connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(role))
            connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")
    except psycopg.OperationalError as error:
        raise Unavailable(f"lost the connection to PostgreSQL while creating databases: {error}") from None
