"""PostgreSQL from the system's programs: a cluster in the stack's folder, and a database with an owner of its own for each service.

Root cannot run it, so that root runs it as the system's user `postgres`.
"""

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Any

from components.core.errors import BadParams, NotFound, RetuneError, Unavailable
from components.core.ports import HOST
from infra.local.layout import DATABASES, Stack, write_private

ADMINISTRATOR = "postgres"
PLACES = Path("/usr/lib/postgresql")  # where Debian puts each release


def program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs: that of PATH, else of the newest release that Debian has installed.

    Raises:
        NotThere: it is not installed.
    """
    releases = sorted((int(place.name), place) for place in PLACES.glob("*") if place.name.isdigit() and (place / "bin" / name).exists())
    found = shutil.which(name) if name != "postgres" else None
    if releases:  # the server and its tools must be of one release
        found = str(releases[-1][1] / "bin" / name)
    if not found and (beside := shutil.which("pg_ctl")):
        found = shutil.which(name, path=str(Path(beside).resolve().parent))
    if not found:
        raise NotFound(f"PostgreSQL's program {name} is neither on PATH nor below {PLACES}: install it, as `apt-get install postgresql`")
    return found


def account() -> dict[str, Any]:
    """Return as whom PostgreSQL's programs run, for subprocess: as ourselves, unless we are root.

    Raises:
        NotThere: we are root, and there is no user `postgres`.
    """
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam(ADMINISTRATOR)
    except KeyError:
        raise NotFound("PostgreSQL does not run as root: expected a system user `postgres`, found none") from None
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def home(stack: Stack) -> Path:
    """Return the folder that is PostgreSQL's alone."""
    return stack.folder / "postgres"


def make_cluster(stack: Stack) -> None:
    """Make the cluster, unless it is there; one whose making was interrupted is made anew.

    Raises:
        BadParams: the user who runs it cannot enter the folder.
        RetuneError: `initdb` failed.
    """
    place, who = home(stack), account()
    if (place / "data").exists():
        return
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700)
    password = place / "password"
    write_private(password, stack.secrets["POSTGRES_PASSWORD"])
    for path in (place, password):
        os.chown(path, who.get("user", -1), who.get("group", -1))
    check_enterable(place, who)
    arguments = ["--auth=scram-sha-256", "--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8", f"--username={ADMINISTRATOR}"]
    command = [program("initdb"), *arguments, f"--pwfile={password}", f"--pgdata={place / 'partial'}"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False, **who)
    password.unlink()
    if done.returncode != 0:
        raise RetuneError(f"initdb could not make {place}: {' '.join(done.stderr.strip().splitlines()[-3:])}")
    (place / "partial").rename(place / "data")


def check_enterable(place: Path, who: dict[str, Any]) -> None:
    """Make sure that the user who runs PostgreSQL can enter its folder.

    Raises:
        BadParams: it cannot; root's own folders are closed to it.
    """
    if who and subprocess.run(["test", "-x", str(place)], cwd="/", check=False, **who).returncode != 0:
        raise BadParams(f"the user {ADMINISTRATOR}, as whom root runs PostgreSQL, cannot enter {place}; name a folder that it can")


def command(stack: Stack) -> list[str]:
    """Return the command that serves the cluster, on loopback only."""
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
    """Return libpq's variables for the owner of a database, or for the administrator: so no address with a password stands in a command."""
    owner = ADMINISTRATOR if database == ADMINISTRATOR else database
    password = stack.secrets["POSTGRES_PASSWORD" if owner == ADMINISTRATOR else f"{owner.upper()}_DATABASE_PASSWORD"]
    port = str(stack.ports["postgres"])
    return {"PGHOST": HOST, "PGPORT": port, "PGUSER": owner, "PGPASSWORD": password, "PGDATABASE": database, "PGCONNECT_TIMEOUT": "5"}


def answers(stack: Stack) -> bool:
    """Say whether PostgreSQL answers, and knows its administrator.

    Raises:
        BadParams: it refuses the password: secrets.env is not the cluster's.
    """
    import psycopg

    try:
        administer(stack).close()
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            raise BadParams(
                f"PostgreSQL refuses POSTGRES_PASSWORD of {stack.folder / 'secrets.env'}: another cluster, or another file"
            ) from None
        return False
    return True


def administer(stack: Stack) -> Any:
    """Return the administrator's connection, each statement a transaction of its own."""
    import psycopg
    from psycopg.conninfo import make_conninfo

    where = make_conninfo(host=HOST, port=stack.ports["postgres"], user=ADMINISTRATOR, dbname=ADMINISTRATOR, connect_timeout=5)
    return psycopg.connect(where, password=stack.secrets["POSTGRES_PASSWORD"], autocommit=True)


def make_databases(stack: Stack) -> None:
    """Make each service's role and database, unless they are there, and set its password to that of secrets.env.

    Passwords are sent as their hashes: the server's log may hold a statement that failed.

    Raises:
        Unavailable: PostgreSQL went away meanwhile.
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
        raise Unavailable(f"PostgreSQL went away while its databases were made: {error}") from None
