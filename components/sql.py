"""A table by its address: `sql://NAME/TABLE`, or `sql://NAME/SCHEMA.TABLE`, in the database whose SQLAlchemy address is in RETUNE_SQL_NAME.

Reads a table into a Parquet file, in the order of its primary key. No message shows what is secret in an address.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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

from components.errors import BadParams, BadSource, RetuneError, Unavailable
from components.params import nearest

SCHEME = "sql://"
_DIGITS = 38  # of Parquet's decimals
_ROWS = 5_000  # that are held at a time
_ADDRESS = re.compile(r"sql://(?P<name>[A-Za-z][A-Za-z0-9_-]*)/((?P<schema>[^/.]+)\.)?(?P<table>[^/.]+)")
_EXPECTED = "SQLAlchemy's address of a database, as postgresql+psycopg://USER:PASSWORD@HOST/DATABASE or sqlite:////…/FILE"
# What no retry mends; drivers tell it in no other way.
_FOR_GOOD = re.compile(r"password|authentication|access denied|does not exist|unknown database|no pg_hba|permission denied", re.IGNORECASE)
_SECRET = re.compile(r"pass|secret|token|key", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where a table is; `url` has the password."""

    name: str
    schema: str | None
    table: str
    url: sa.URL

    def __str__(self) -> str:
        """Return the address, without what is secret."""
        return f"{SCHEME}{self.name}/{f'{self.schema}.' if self.schema else ''}{self.table}"


def variable_of(name: str) -> str:
    """Return the name of the variable in which the address of the database `name` is."""
    return "RETUNE_SQL_" + name.upper().replace("-", "_")


def find(address: str, environment: Mapping[str, str]) -> Place:
    """Return the place that `address` names.

    Raises:
        BadParams: it is no such address.
        BadSource: the variable is missing or no address of a database.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise BadParams(f"{address.partition('@')[0]}: expected sql://NAME/TABLE; the database's own address stands in RETUNE_SQL_NAME")
    variable = variable_of(found["name"])
    if not environment.get(variable):
        raise BadSource(f"{address}: the variable {variable} is missing: expected {_EXPECTED}")
    try:
        url = sa.make_url(environment[variable])
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise BadSource(f"{address}: {variable} cannot be read: expected {_EXPECTED}; @ : / in a password as %40 %3A %2F") from None
    return Place(found["name"], found["schema"], found["table"], url)


def connect(place: Place) -> sa.Engine:
    """Return the way to the database of a place; every use is a connection of its own.

    Raises:
        BadSource: its driver is not installed, or is one for asyncio; or its SQLite file's folder is not there.
    """
    if place.url.get_backend_name() == "sqlite" and not (folder := Path(place.url.database or "").absolute().parent).is_dir():
        raise BadSource(f"{place}: there is no folder {folder}, which {variable_of(place.name)} names")
    try:
        engine = sa.create_engine(place.url, poolclass=NullPool)
    except (ImportError, sqlalchemy.exc.ArgumentError) as error:
        raise BadSource(f"{place}: the driver of {place.url.drivername} is not installed: {_masked(error, place)}") from None
    if engine.dialect.is_async:
        raise BadSource(f"{place}: {place.url.drivername} is a driver for asyncio: expected another one, as postgresql+psycopg")
    return engine


@contextmanager
def reaching(place: Place) -> Iterator[None]:
    """Turn the database's errors into one message: Unavailable where a retry can mend it, BadSource where it lets nobody in."""
    try:
        yield
    except sqlalchemy.exc.OperationalError as error:
        said = _masked(error.orig or error, place)
        if _FOR_GOOD.search(said):
            raise BadSource(f"{place}: the database that {variable_of(place.name)} names: {said}") from None
        raise Unavailable(f"{place}: the database is busy, full or out of reach: {said}") from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise RetuneError(f"{place}: the database refuses: {_masked(getattr(error, 'orig', None) or error, place)}") from None


def reflect(connection: sa.Connection, place: Place) -> sa.Table:
    """Return the table as it is in the database.

    Raises:
        BadSource: there is none of that name.
    """
    try:
        return sa.Table(place.table, sa.MetaData(), schema=place.schema, autoload_with=connection)
    except sqlalchemy.exc.NoSuchTableError:
        known = sa.inspect(connection).get_table_names(place.schema)
        raise BadSource(f"{place}: there is no table {place.table!r}{nearest(place.table, known) or '; there is none at all'}") from None


def bring(place: Place, path: Path) -> None:
    """Write a table into the Parquet file `path`, in the order of its primary key, as it is at one moment; memory does not grow with it.

    Raises:
        BadSource: there is no such database or table, it has no primary key, or a cell is not of its column's type.
        Unavailable: the database is out of reach.
    """
    if place.url.get_backend_name() == "sqlite" and not Path(place.url.database or "").is_file():  # SQLite would make it
        raise BadSource(f"{place}: there is no database file {place.url.database}, which {variable_of(place.name)} names")
    with reaching(place), connect(place).connect() as connection:
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


def _blocks(rows: "sa.CursorResult[Any]", place: Place) -> Iterator[Any]:
    try:
        yield from rows.partitions(_ROWS)
    except ValueError as error:  # SQLite keeps any text in any column
        raise BadSource(f"{place}: a cell is not of its column's type: {error}") from error


def _cells(place: Place, name: str, values: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
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


def _masked(error: BaseException, place: Place) -> str:
    """Return the first line of a message, without what is secret in the address."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    named = [value for name, value in place.url.query.items() if _SECRET.search(name) and isinstance(value, str)]
    for secret in filter(None, [str(place.url.password or ""), *named]):
        text = text.replace(secret, "***")
    return text
