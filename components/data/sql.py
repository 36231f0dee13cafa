"""Databases by name: the SQLAlchemy address of NAME stands in RETUNE_SQL_NAME, and `sql://NAME/TABLE` is a table there.

Reads a table into a Parquet file, in the order of its primary key. No message shows what is secret in an address.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
import sqlalchemy.exc
from sqlalchemy.pool import NullPool

from components.core.errors import BadParams, BadSource, Cancelled, RetuneError, Unavailable
from components.core.section import nearest

SCHEME = "sql://"
_DIGITS = 38  # of Parquet's decimals
_ROWS = 5_000  # that are held at a time
_PATIENCE = 10  # seconds for a database to accept a connection
_PATIENT = {"psycopg", "psycopg2", "pymysql", "mysqldb"}  # drivers that know connect_timeout
_PLACE = re.compile(r"sql://(?P<name>[A-Za-z][A-Za-z0-9_-]*)/((?P<schema>[^/.]+)\.)?(?P<table>[^/.]+)")
# What a driver says when it was let in no further, in which a retry changes nothing; it tells in no other way.
_FOR_GOOD = re.compile(r"password|authentication|access denied|does not exist|unknown database|no pg_hba|permission denied", re.IGNORECASE)
_PASSING = re.compile(r"is locked|is full")  # SQLite calls everything operational
_SAID = 500  # characters of what a database says
_SECRET = re.compile(r"pass|secret|token|key", re.IGNORECASE)


@dataclass(frozen=True)
class TableAddress:
    """Where a table is; `url` has the password."""

    name: str
    schema: str | None
    table: str
    url: sa.URL

    def __str__(self) -> str:
        """Return the address, without what is secret."""
        return f"{SCHEME}{self.name}/{f'{self.schema}.' if self.schema else ''}{self.table}"


def variable_of(name: str) -> str:
    """Return the name of the variable in which the address of the database `name` stands."""
    return "RETUNE_SQL_" + name.upper().replace("-", "_")


def url_of(variable: str, environment: Mapping[str, str]) -> sa.URL:
    """Return the address that a variable holds.

    Raises:
        BadSource: it is missing, or cannot be read; neither is shown.
    """
    expected = "SQLAlchemy's address of a database, as postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
    if not environment.get(variable):
        raise BadSource(f"the environment variable {variable} is missing: expected {expected}")
    try:
        url = sa.make_url(environment[variable])
    except (sqlalchemy.exc.ArgumentError, ValueError):
        hint = "in a password, @ : / are written %40 %3A %2F"
        raise BadSource(f"the environment variable {variable} cannot be read: expected {expected}; {hint}") from None
    # Where no driver is named, the one that is installed here; SQLAlchemy's own choice is psycopg2.
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url


def find(address: str, environment: Mapping[str, str]) -> TableAddress:
    """Return the place that `address` names.

    Raises:
        BadParams: it is no address of a table.
        BadSource: the variable is missing, or cannot be read.
    """
    found = _PLACE.fullmatch(address)
    if found is None:  # the address is not shown: where it is the database's own, a password may stand in it
        raise BadParams("expected sql://NAME/TABLE, found something else; the database's own address stands in RETUNE_SQL_NAME")
    return TableAddress(found["name"], found["schema"], found["table"], url_of(variable_of(found["name"]), environment))


@contextmanager
def connected(called: str, variable: str, url: sa.URL, makes: bool = False, what: str = "") -> Iterator[sa.Connection]:
    """Give a connection of its own to a database, of which messages speak as `called`; only who `makes` something makes an SQLite file.

    Raises:
        BadSource: there is no such database or driver, or it refuses `what` is asked of it.
        Unavailable: it is out of reach, busy or full, or broke off; a retry can mend it.
    """
    reached = False
    try:
        patience = {"connect_timeout": _PATIENCE} if url.get_driver_name() in _PATIENT and "connect_timeout" not in url.query else {}
        engine = sa.create_engine(url, poolclass=NullPool, connect_args=patience)
        if engine.dialect.is_async:
            raise BadSource(
                f"{variable} names the driver {url.drivername}, which is for asyncio: expected another one, as postgresql+psycopg"
            )
        _check_file(called, variable, url, makes)
        with engine.connect() as connection, _let_go(connection):
            reached = True
            yield connection
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise _fault(called, variable, url, error, reached, what) from None  # the driver's own words may hold the password


@contextmanager
def _let_go(connection: sa.Connection) -> Iterator[None]:
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


def _check_file(called: str, variable: str, url: sa.URL, makes: bool) -> None:
    if url.get_backend_name() != "sqlite" or (url.database or "").startswith("file:"):
        return
    path = Path(url.database or "")
    if not (path.absolute().parent.is_dir() if makes else path.is_file()):  # SQLite would make it
        raise BadSource(f"{called}: there is no {'folder of the ' * makes}database file {path}, which {variable} names")


def _fault(called: str, variable: str, url: sa.URL, error: Exception, reached: bool, what: str) -> RetuneError:
    """Return the error to raise: an `Unavailable` where a retry can mend it."""
    if isinstance(error, ImportError | sqlalchemy.exc.NoSuchModuleError):
        return BadSource(f"{called}: {variable} names {url.drivername}, whose driver is not installed: {masked(error, url)}")
    cause = getattr(error, "orig", None) or error
    said, operational = masked(cause, url), isinstance(error, sqlalchemy.exc.OperationalError)
    if operational and not reached:
        return (BadSource if _FOR_GOOD.search(said) else Unavailable)(f"{called}: the database that {variable} names: {said}")
    # PostgreSQL's drivers give a code, and call operational what is the server's affair.
    code = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    broken = isinstance(error, sqlalchemy.exc.DBAPIError) and error.connection_invalidated
    if broken or (operational and (code or _PASSING.search(said))):
        return Unavailable(f"{called}: the database broke off: {said}")
    return BadSource(f"{called}: the database refuses{f' {what}' if what else ''}: {said}")


def masked(error: BaseException, url: sa.URL) -> str:
    """Return the first line of a message, without what is secret in the address."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    named = [value for name, value in url.query.items() if _SECRET.search(name) and isinstance(value, str)]
    for secret in filter(None, [str(url.password or ""), *named]):
        text = text.replace(secret, "***")
    return text if len(text) <= _SAID else f"{text[:_SAID]}…"


def reached(place: TableAddress, makes: bool = False) -> AbstractContextManager[sa.Connection]:
    """Give a connection to the database of a place, as `connected` does."""
    return connected(str(place), variable_of(place.name), place.url, makes)


def reflect(connection: sa.Connection, place: TableAddress) -> sa.Table:
    """Return the table as it is in the database.

    Raises:
        BadSource: there is none of that name.
    """
    try:
        return sa.Table(place.table, sa.MetaData(), schema=place.schema, autoload_with=connection)
    except sqlalchemy.exc.NoSuchTableError:
        known = sa.inspect(connection).get_table_names(place.schema)
        raise BadSource(f"{place}: there is no table {place.table!r}{nearest(place.table, known) or '; there is none at all'}") from None


def bring(place: TableAddress, path: Path) -> None:
    """Write a table into the Parquet file `path`, in the order of its primary key, as it is at one moment; memory does not grow with it.

    Raises:
        BadSource: there is no such database or table, it has no primary key, or a cell is not of its column's type.
        Unavailable: the database is out of reach.
    """
    with reached(place) as connection:
        table = reflect(connection, place)
        key = list(table.primary_key.columns)
        if not key:
            raise BadSource(f"{place} has no primary key, so its rows have no order that would be the same again; give it one")
        schema = pa.schema([(column.name, arrow_type(column.type)) for column in table.columns])
        rows = connection.execution_options(stream_results=True).execute(sa.select(table).order_by(*key))
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for block in _blocks(rows, place):
                columns = zip(schema, zip(*block, strict=True), strict=True)
                cells = [_cells(place, field.name, values, field.type) for field, values in columns]
                writer.write_table(pa.table(cells, schema=schema))


def _blocks(rows: "sa.CursorResult[Any]", place: TableAddress) -> Iterator[Any]:
    try:
        yield from rows.partitions(_ROWS)
    except ValueError as error:  # SQLite keeps any text in any column
        raise BadSource(f"{place}: a cell is not of its column's type: {error}") from error


def _cells(place: TableAddress, name: str, values: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array([_text(value) for value in values] if kind == pa.string() else values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise BadSource(f"{place}: column {name!r} has a cell that is not {kind}: {error}") from error


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Decimal):
        return format(value, "f")
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else str(value)


def arrow_type(kind: sa.types.TypeEngine[Any]) -> pa.DataType:
    """Return what a column becomes in Parquet; what has no type of its own there becomes text."""
    if isinstance(kind, sa.Numeric) and not isinstance(kind, sa.Float) and kind.precision and kind.precision <= _DIGITS:
        return pa.decimal128(kind.precision, kind.scale or 0)
    types: tuple[tuple[type, pa.DataType], ...] = (
        (sa.Boolean, pa.bool_()),
        (sa.Integer, pa.int64()),
        (sa.Float, pa.float64()),
        (sa.DateTime, pa.timestamp("us", tz="UTC" if getattr(kind, "timezone", False) else None)),
        (sa.Date, pa.date32()),
        (sa.Time, pa.time64("us")),
        (sa.LargeBinary, pa.binary()),
    )
    return next((arrow for known, arrow in types if isinstance(kind, known)), pa.string())


def sql_type(kind: pa.DataType) -> sa.types.TypeEngine[Any]:
    """Return what a column becomes in a database; what has no type of its own there becomes text, lists and objects as JSON."""
    types = pa.types
    if types.is_boolean(kind):
        return sa.Boolean()
    if types.is_integer(kind) and kind != pa.uint64():  # whose upper half no database's integer holds
        return sa.BigInteger()
    if types.is_decimal(kind):
        return sa.Numeric(kind.precision, kind.scale)
    if types.is_floating(kind):
        return sa.Double()
    if types.is_timestamp(kind):
        return sa.DateTime(timezone=kind.tz is not None)
    if types.is_date(kind):
        return sa.Date()
    if types.is_time(kind):
        return sa.Time()
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return sa.LargeBinary()
    return sa.Text()


def as_value(cell: Any, kind: sa.types.TypeEngine[Any]) -> Any:
    """Return a cell of Arrow's as what a column of the type `kind` takes."""
    if isinstance(cell, datetime):
        return cell.astimezone(UTC) if cell.tzinfo else cell  # SQLite keeps no zone
    if cell is None or not isinstance(kind, sa.Text) or isinstance(cell, str):
        return cell
    if isinstance(cell, date | time | Decimal):
        return str(cell)
    return json.dumps(cell, ensure_ascii=False, default=str)
