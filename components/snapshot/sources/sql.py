"""sql://NAME: the rows of `snapshot.query`, from the database whose SQLAlchemy address is in the variable RETUNE_SQL_NAME.

The answer is streamed into a Parquet file of text, so that memory does not grow with it. Nothing is ever written into the database.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.rows import text_schema
from components.errors import BadParams, BadSource, Cancelled, RetuneError, Unavailable
from components.snapshot.cells import as_text
from components.snapshot.faults import Faults
from components.snapshot.sources import Asked, Brought

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, CursorResult

log = logging.getLogger(__name__)

SETTINGS = frozenset({"query"})

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_ROWS = 1_000  # that are held at a time
_TELL_EVERY = 100_000  # rows
_PATIENCE = 10  # seconds for a database to accept a connection
_PATIENT = {"psycopg", "psycopg2", "pymysql", "mysqldb"}  # drivers that know connect_timeout
# Said first. Times of a zone come out in the session's, which would else be that of the machine.
_OPENING = {
    "postgresql": ("SET TRANSACTION READ ONLY", "SET LOCAL TIME ZONE 'UTC'"),
    "sqlite": ("PRAGMA query_only = ON",),
    "mysql": ("SET SESSION TRANSACTION READ ONLY", "SET time_zone = '+00:00'"),
    "mariadb": ("SET SESSION TRANSACTION READ ONLY", "SET time_zone = '+00:00'"),
}
# What a driver says when it was let in no further, in which a retry changes nothing; it tells in no other way.
_FOR_GOOD = re.compile(r"password|authentication|access denied|does not exist|unknown database|no pg_hba|permission denied", re.IGNORECASE)
_SECRET = re.compile(r"pass|secret|token|key", re.IGNORECASE)


def bring(asked: Asked, folder: Path) -> Brought:
    """Ask the database and write the answer into `folder`.

    Raises:
        BadParams: snapshot.query is missing, or NAME is no name.
        BadSource: the variable is missing, the driver is, or the database refuses; or the answer is no table.
        Unavailable: the database is out of reach.
    """
    path = folder / "rows.parquet"
    with _answer(asked) as result:
        rows = _write(result, _columns(asked, result), path, Faults(asked.address))
    log.info("%s gave %d rows", asked.address, rows)
    return Brought({path: asked.address}, asked.address, "sql")


def look(asked: Asked) -> str:
    """Return the columns that the query gives; raises as `bring` does."""
    with _answer(asked) as result:
        return f"reached {result.dialect.name}; the query gives {', '.join(_columns(asked, result))}"


@contextmanager
def _answer(asked: Asked) -> Iterator["CursorResult[Any]"]:
    """Give the answer to the query, of which `_ROWS` are fetched at a time; read only, and undone at the end."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    variable, query = _variable(asked), asked.settings.query
    if query is None:
        raise BadParams(f"params.yaml: snapshot.query is missing, which {asked.address} is asked: expected a SELECT")
    url = _url(variable, asked.environment)
    connected = False
    try:
        patience = {"connect_timeout": _PATIENCE} if url.get_driver_name() in _PATIENT and "connect_timeout" not in url.query else {}
        engine = create_engine(url, poolclass=NullPool, connect_args=patience)
        _refuse_unfit(asked, variable, url, engine.dialect.is_async)
        with engine.connect() as connection:
            connected = True
            with _let_go(connection):
                for statement in _OPENING.get(engine.dialect.name, ()):
                    connection.exec_driver_sql(statement)
                # No parameters: a percent sign, and a colon, are then what they are.
                with connection.execution_options(stream_results=True, no_parameters=True).exec_driver_sql(query) as result:
                    yield result
    except (SQLAlchemyError, ImportError) as error:
        raise _fault(asked, variable, url, error, connected) from None  # the driver's own words may hold the password


@contextmanager
def _let_go(connection: "Connection") -> Iterator[None]:
    """When SIGTERM ends us, tell the database, which would go on, and do not ask it to undo: it still has our question to answer.

    At Ctrl-C psycopg and SQLAlchemy do so by themselves; they know nothing of `Cancelled`.
    """
    try:
        yield
    except Cancelled:
        cancel = getattr(connection.connection.driver_connection, "cancel", None)  # of psycopg and psycopg2
        if cancel is not None:
            with suppress(Exception):
                cancel()
        connection.invalidate()
        raise


def _variable(asked: Asked) -> str:
    if not _NAME.fullmatch(asked.place):
        raise BadParams(
            "params.yaml: snapshot.source: expected sql://NAME, a name of letters, digits, - and _, found something else. The address of "
            "the database stands in the environment variable RETUNE_SQL_NAME, never in params.yaml"
        )
    return "RETUNE_SQL_" + asked.place.upper().replace("-", "_")


def _url(variable: str, environment: Mapping[str, str]) -> "URL":
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    expected = "SQLAlchemy's address of a database, as postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
    if not environment.get(variable):
        raise BadSource(f"the environment variable {variable} is missing: expected {expected}")
    try:
        url = make_url(environment[variable])
    except (ArgumentError, ValueError):
        hint = "in a password, @ : / are written %40 %3A %2F"
        raise BadSource(f"the environment variable {variable} cannot be read: expected {expected}; {hint}") from None
    # Where no driver is named, the one that is installed here; SQLAlchemy's own choice is psycopg2.
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url


def _refuse_unfit(asked: Asked, variable: str, url: "URL", is_async: bool) -> None:
    if is_async:
        raise BadSource(f"{variable} names the driver {url.drivername}, which is for asyncio: expected another one, as postgresql+psycopg")
    # SQLite would make the file.
    if url.get_backend_name() == "sqlite" and not (url.database or "").startswith("file:") and not Path(url.database or "").is_file():
        raise BadSource(f"{asked.address}: there is no database file {url.database}, which {variable} names")


def _fault(asked: Asked, variable: str, url: "URL", error: Exception, connected: bool) -> RetuneError:
    """Return the error to raise: an `Unavailable` where a retry can mend it."""
    from sqlalchemy.exc import DBAPIError, NoSuchModuleError, OperationalError

    if isinstance(error, ImportError | NoSuchModuleError):
        return BadSource(f"{asked.address}: {variable} names {url.drivername}, whose driver is not installed: {_masked(error, url)}")
    said = _masked(getattr(error, "orig", None) or error, url)
    if isinstance(error, OperationalError) and not connected:
        return (BadSource if _FOR_GOOD.search(said) else Unavailable)(f"{asked.address}: the database that {variable} names: {said}")
    # PostgreSQL's drivers give a code, and call operational what is the server's affair; SQLite calls everything so.
    code = getattr(getattr(error, "orig", None), "sqlstate", None) or getattr(getattr(error, "orig", None), "pgcode", None)
    passing = isinstance(error, OperationalError) and (code or "is locked" in said)
    if passing or (isinstance(error, DBAPIError) and error.connection_invalidated):
        return Unavailable(f"{asked.address}: the database broke off: {said}")
    return BadSource(f"{asked.address}: the database refuses snapshot.query: {said}")


def _masked(error: Exception, url: "URL") -> str:
    """Return the first line of a message, without what is secret in the address."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    named = [value for name, value in url.query.items() if _SECRET.search(name) and isinstance(value, str)]
    for secret in filter(None, [str(url.password or ""), *named]):
        text = text.replace(secret, "***")
    return text


def _columns(asked: Asked, result: "CursorResult[Any]") -> list[str]:
    """Return the names of the columns; each must have one of its own."""
    faults = Faults(asked.address)
    if not result.returns_rows:
        faults.add("snapshot.query gives no table: expected a SELECT")
        faults.settle()
    columns = [str(name) for name in result.keys()]  # noqa: SIM118  # a result is no mapping
    for number, name in enumerate(columns, start=1):
        if not name.strip():
            faults.add(f"column {number} of snapshot.query has no name; give it one: … AS name")
        elif columns.index(name) < number - 1:
            faults.add(f"snapshot.query gives the column {name!r} more than once; rename one: … AS other_name")
    faults.settle()
    return columns


def _write(result: "CursorResult[Any]", columns: Sequence[str], path: Path, faults: Faults) -> int:
    """Write the rows as text, and return their number."""
    rows, schema = 0, text_schema(columns)
    with pq.ParquetWriter(path, schema) as writer:
        for block in result.partitions(_ROWS):
            cells = [
                pa.array([_text(value, name, rows + place, faults) for place, value in enumerate(values, start=1)], pa.string())
                for name, values in zip(columns, zip(*block, strict=True), strict=True)
            ]
            writer.write_table(pa.table(cells, schema=schema))
            rows += len(block)
            if rows % _TELL_EVERY == 0:
                log.info("%d rows have come from the database", rows)
    if not rows:
        faults.add("snapshot.query gives no rows; expected at least one")
    faults.settle()
    return rows


def _text(value: Any, column: str, row: int, faults: Faults) -> str | None:
    """Return a value as the text of a cell; a number with all its digits, and without an exponent where it is exact."""
    try:
        if isinstance(value, Decimal):
            return format(value, "f")
        text = as_text(bytes(value) if isinstance(value, bytearray | memoryview) else value)
        if text is not None and "\0" in text:
            raise ValueError("a NUL character, expected text")
    except ValueError as error:
        faults.add(f"row {row}: column {column!r} holds {error}")
        return None
    return text
