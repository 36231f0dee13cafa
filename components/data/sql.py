"""Named databases: the variable RETUNE_SQL_NAME contains the SQLAlchemy URL of NAME, and `sql://NAME/TABLE` is a table in it.

Reads a table into a Parquet file in the order of its primary key. Messages never contain the secrets of a URL.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
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

from components.core.errors import BadParams, BadSource, RetuneError, Unavailable, shorten
from components.core.section import nearest

SCHEME = "sql://"
_DIGITS = 38  # maximum of Parquet's decimals
_ROWS = 5_000  # rows in memory
_CONNECT_TIMEOUT = 10  # seconds
_TIMEOUT_DRIVERS = {"psycopg", "psycopg2", "pymysql", "mysqldb"}  # drivers that support connect_timeout
_ADDRESS = re.compile(r"sql://(?P<name>[A-Za-z][A-Za-z0-9_-]*)/((?P<schema>[^/.]+)\.)?(?P<table>[^/.]+)")
# Connection errors that a retry does not fix; drivers distinguish them only by their message.
_PERMANENT = re.compile(r"password|authentication|access denied|does not exist|unknown database|no pg_hba|permission denied", re.IGNORECASE)
_TRANSIENT = re.compile(r"is locked|is full")  # SQLite raises OperationalError for everything
_MESSAGE_LENGTH = 500  # characters
_SECRET = re.compile(r"pass|secret|token|key", re.IGNORECASE)


@dataclass(frozen=True)
class TableAddress:
    """The address of a table; `url` contains the password."""

    name: str
    schema: str | None
    table: str
    url: sa.URL

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}/{f'{self.schema}.' if self.schema else ''}{self.table}"


def variable_of(name: str) -> str:
    """Return the name of the variable with the URL of the database `name`."""
    return "RETUNE_SQL_" + name.upper().replace("-", "_")


def url_of(variable: str, environment: Mapping[str, str]) -> sa.URL:
    """Return the URL in a variable.

    Raises:
        BadSource: the variable is missing or invalid; the message omits its value.
    """
    expected = "a SQLAlchemy URL such as postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
    if not environment.get(variable):
        raise BadSource(f"the environment variable {variable} is missing: expected {expected}")
    try:
        url = sa.make_url(environment[variable])
    except (sqlalchemy.exc.ArgumentError, ValueError):
        hint = "in a password, write @ : / as %40 %3A %2F"
        raise BadSource(f"the environment variable {variable} is invalid: expected {expected}; {hint}") from None
    # Without a driver, use the installed one; SQLAlchemy's default is psycopg2.
    return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url


def parse_address(address: str, environment: Mapping[str, str]) -> TableAddress:
    """Return the table that `address` names.

    Raises:
        BadParams: `address` is not sql://NAME/TABLE.
        BadSource: the variable is missing or invalid.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:  # the message omits the address: a database URL may contain a password
        raise BadParams("expected sql://NAME/TABLE, found something else; set the database's own URL in RETUNE_SQL_NAME")
    return TableAddress(match["name"], match["schema"], match["table"], url_of(variable_of(match["name"]), environment))


@contextmanager
def connect(name: str, variable: str, url: sa.URL, create: bool = False, action: str = "") -> Iterator[sa.Connection]:
    """Yield a new connection to a database; messages call it `name`. `create` allows creating an SQLite file.

    Raises:
        BadSource: the database or the driver is missing, or the database refuses `action`.
        Unavailable: the database is unreachable, busy or full, or the connection broke; a retry can succeed.
    """
    connected = False
    try:
        supports_timeout = url.get_driver_name() in _TIMEOUT_DRIVERS and "connect_timeout" not in url.query
        arguments = {"connect_timeout": _CONNECT_TIMEOUT} if supports_timeout else {}
        engine = sa.create_engine(url, poolclass=NullPool, connect_args=arguments)
        if engine.dialect.is_async:
            raise BadSource(f"{variable} names the asyncio driver {url.drivername}: expected another one, such as postgresql+psycopg")
        _check_file(name, variable, url, create)
        with engine.connect() as connection:
            connected = True
            yield connection
    except (sqlalchemy.exc.SQLAlchemyError, ImportError) as error:
        raise _translate_error(name, variable, url, error, connected, action) from None  # the driver's message may contain the password


def _check_file(name: str, variable: str, url: sa.URL, create: bool) -> None:
    if url.get_backend_name() != "sqlite" or (url.database or "").startswith("file:"):
        return
    path = Path(url.database or "")
    if not (path.absolute().parent.is_dir() if create else path.is_file()):  # SQLite would create it
        raise BadSource(f"{name}: the {'folder of the ' * create}database file {path} in {variable} does not exist")


def _translate_error(name: str, variable: str, url: sa.URL, error: Exception, connected: bool, action: str) -> RetuneError:
    if isinstance(error, ImportError | sqlalchemy.exc.NoSuchModuleError):
        return BadSource(f"{name}: {variable} uses {url.drivername}, whose driver is not installed: {masked(error, url)}")
    cause = getattr(error, "orig", None) or error
    message, operational = masked(cause, url), isinstance(error, sqlalchemy.exc.OperationalError)
    if operational and not connected:
        return (BadSource if _PERMANENT.search(message) else Unavailable)(
            f"{name}: cannot connect to the database in {variable}: {message}"
        )
    # PostgreSQL drivers set a code, and raise OperationalError for server problems.
    code = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    broken = isinstance(error, sqlalchemy.exc.DBAPIError) and error.connection_invalidated
    if broken or (operational and (code or _TRANSIENT.search(message))):
        return Unavailable(f"{name}: the database connection failed: {message}")
    return BadSource(f"{name}: the database refuses{f' {action}' if action else ''}: {message}")


def masked(error: BaseException, url: sa.URL) -> str:
    """Return the first line of a message without the secrets of the URL."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    secrets = [value for name, value in url.query.items() if _SECRET.search(name) and isinstance(value, str)]
    for secret in filter(None, [str(url.password or ""), *secrets]):
        text = text.replace(secret, "***")
    return shorten(text, _MESSAGE_LENGTH)


def connect_to(address: TableAddress, create: bool = False) -> AbstractContextManager[sa.Connection]:
    """Yield a connection to the database of a table, as `connect` does."""
    return connect(str(address), variable_of(address.name), address.url, create)


def reflect(connection: sa.Connection, address: TableAddress) -> sa.Table:
    """Return the table as it is in the database.

    Raises:
        BadSource: the table does not exist.
    """
    try:
        return sa.Table(address.table, sa.MetaData(), schema=address.schema, autoload_with=connection)
    except sqlalchemy.exc.NoSuchTableError:
        tables = sa.inspect(connection).get_table_names(address.schema)
        hint = nearest(address.table, tables) or "; the database has no tables"
        raise BadSource(f"{address}: table {address.table!r} does not exist{hint}") from None


def fetch_table(address: TableAddress, path: Path) -> None:
    """Write a table to the Parquet file `path` in the order of its primary key, from one transaction, in constant memory.

    Raises:
        BadSource: the database or table does not exist, the table has no primary key, or a cell does not match its column's type.
        Unavailable: the database is unreachable.
    """
    with connect_to(address) as connection:
        table = reflect(connection, address)
        key = list(table.primary_key.columns)
        if not key:
            raise BadSource(f"{address} has no primary key, so its rows have no reproducible order; add a primary key")
        schema = pa.schema([(column.name, arrow_type(column.type)) for column in table.columns])
        rows = connection.execution_options(stream_results=True).execute(sa.select(table).order_by(*key))
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for block in _blocks(rows, address):
                columns = zip(schema, zip(*block, strict=True), strict=True)
                cells = [_cells(address, field.name, values, field.type) for field, values in columns]
                writer.write_table(pa.table(cells, schema=schema))


def _blocks(rows: "sa.CursorResult[Any]", address: TableAddress) -> Iterator[Any]:
    try:
        yield from rows.partitions(_ROWS)
    except ValueError as error:  # SQLite allows any text in any column
        raise BadSource(f"{address}: a cell does not match its column's type: {error}") from error


def _cells(address: TableAddress, name: str, values: tuple[Any, ...], type_: pa.DataType) -> pa.Array:
    try:
        return pa.array([_text(value) for value in values] if type_ == pa.string() else values, type_)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise BadSource(f"{address}: column {name!r} has a cell that is not {type_}: {error}") from error


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, Decimal):
        return format(value, "f")
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else str(value)


def arrow_type(type_: sa.types.TypeEngine[Any]) -> pa.DataType:
    """Return the Parquet type of a column; types without an equivalent become text."""
    if isinstance(type_, sa.Numeric) and not isinstance(type_, sa.Float) and type_.precision and type_.precision <= _DIGITS:
        return pa.decimal128(type_.precision, type_.scale or 0)
    types: tuple[tuple[type, pa.DataType], ...] = (
        (sa.Boolean, pa.bool_()),
        (sa.Integer, pa.int64()),
        (sa.Float, pa.float64()),
        (sa.DateTime, pa.timestamp("us", tz="UTC" if getattr(type_, "timezone", False) else None)),
        (sa.Date, pa.date32()),
        (sa.Time, pa.time64("us")),
        (sa.LargeBinary, pa.binary()),
    )
    return next((arrow for sql, arrow in types if isinstance(type_, sql)), pa.string())


_SQL_TYPES: dict[Callable[[pa.DataType], bool], type[sa.types.TypeEngine[Any]]] = {
    pa.types.is_boolean: sa.Boolean,
    pa.types.is_integer: sa.BigInteger,
    pa.types.is_floating: sa.Double,
    pa.types.is_date: sa.Date,
    pa.types.is_time: sa.Time,
    **dict.fromkeys((pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary), sa.LargeBinary),
}


def sql_type(type_: pa.DataType) -> sa.types.TypeEngine[Any]:
    """Return the database type of a column; types without an equivalent become text, lists and objects JSON."""
    if pa.types.is_decimal(type_):
        return sa.Numeric(type_.precision, type_.scale)
    if pa.types.is_timestamp(type_):
        return sa.DateTime(timezone=type_.tz is not None)
    if type_ == pa.uint64():  # no database integer holds its upper half
        return sa.Text()
    return next((sql() for matches, sql in _SQL_TYPES.items() if matches(type_)), sa.Text())


def as_value(cell: Any, type_: sa.types.TypeEngine[Any]) -> Any:
    """Return an Arrow cell as a value for a database column of `type_`."""
    if isinstance(cell, datetime):
        return cell.astimezone(UTC) if cell.tzinfo else cell  # SQLite stores no zone
    if cell is None or not isinstance(type_, sa.Text) or isinstance(cell, str):
        return cell
    if isinstance(cell, date | time | Decimal):
        return str(cell)
    return json.dumps(cell, ensure_ascii=False, default=str)
