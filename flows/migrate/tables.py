"""Copy a database row by row from SQLite to PostgreSQL with the same tables, in one transaction, and compare counts and hashes.

Ids, numbers and times are unchanged; the caller may rewrite values such as file locations.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
import sqlalchemy.exc
from sqlalchemy.pool import NullPool

from components.core.errors import BadInput, RetuneError, Unavailable

ROWS = 1_000  # per batch
Rewrite = Callable[[str, dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Content:
    """The content of a table: number of rows, and an order-independent digest."""

    rows: int
    digest: str


def open_source(database: Path) -> sa.Engine:
    """Return a read-only engine of a SQLite file."""
    return sa.create_engine(f"sqlite:///file:{quote(str(database))}?mode=ro&uri=true", poolclass=NullPool)


def open_target(url: str, what: str) -> sa.Engine:
    """Return an engine of a PostgreSQL database; raise BadInput if it rejects the login, or Unavailable, without the password."""
    engine = sa.create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 10})
    try:
        engine.connect().close()
    except sqlalchemy.exc.OperationalError as error:
        message = " ".join(str(error.orig).split())
        refused = "authentication failed" in message or "does not exist" in message or "permission denied" in message
        raise (BadInput if refused else Unavailable)(f"{what} {engine.url} cannot be used: {message}") from None
    return engine


def reflect(connection: sa.Connection) -> sa.MetaData:
    """Return the tables of a database."""
    metadata = sa.MetaData()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sa.exc.SAWarning)  # about unknown types of indexes
        metadata.reflect(connection)
    for table in metadata.tables.values():
        for column in table.c:
            if isinstance(column.type, sa.JSON):
                column.type.none_as_null = True
    return metadata


def unchanged(_table: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return a row unchanged."""
    return row


def contents(
    connection: sa.Connection, tables: sa.MetaData, names: Collection[str], like: sa.MetaData, rewrite: Rewrite = unchanged
) -> dict[str, Content]:
    """Return the content of each table, converted to the column types of `like`; missing tables are empty."""
    return {name: content(rows_of(connection, tables, name, like, rewrite)) for name in sorted(names)}


def content(rows: Iterator[dict[str, Any]]) -> Content:
    """Count and hash rows."""
    count = total = 0
    for row in rows:
        text = json.dumps(row, sort_keys=True, default=_as_text, ensure_ascii=False)
        total = (total + int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())) % 2**256
        count += 1
    return Content(count, f"{total:064x}")


def _as_text(value: object) -> str:
    return value.hex() if isinstance(value, bytes | memoryview) else str(value)


def rows_of(connection: sa.Connection, tables: sa.MetaData, name: str, like: sa.MetaData, rewrite: Rewrite) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, converted to the column types of the same table in `like`; none if it is missing."""
    if name not in tables.tables:
        return
    table, target = tables.tables[name], like.tables[name]
    query = sa.select(*(sa.type_coerce(column, sa.types.NullType()).label(column.name) for column in table.c))  # raw driver values
    for row in connection.execute(query.execution_options(yield_per=ROWS)).mappings():
        yield rewrite(name, {column: _typed(value, target.c[column].type) for column, value in row.items()})


def _typed(value: Any, type_: sa.types.TypeEngine[Any]) -> Any:
    if value is None:
        return None
    if isinstance(type_, sa.Boolean):
        return bool(value)
    if isinstance(type_, sa.Float):
        return float(value)
    if isinstance(type_, sa.JSON):
        return json.loads(value) if isinstance(value, str) else value
    if isinstance(type_, sa.DateTime) and isinstance(value, str):
        return datetime.fromisoformat(value)
    return value


def copy(
    source: sa.Connection,
    target: sa.Connection,
    tables: tuple[sa.MetaData, sa.MetaData],
    names: Collection[str],
    rewrite: Rewrite = unchanged,
) -> None:
    """Insert the rows of the tables `names` into empty ones and advance their sequences; raise RetuneError if one is rejected."""
    source_tables, target_tables = tables
    for table in target_tables.sorted_tables:  # in order of foreign keys
        if table.name not in names:
            continue
        try:
            rows = rows_of(source, source_tables, table.name, target_tables, rewrite)
            while batch := list(islice(rows, ROWS)):
                target.execute(table.insert(), batch)
        except sqlalchemy.exc.DBAPIError as error:
            message = " ".join(str(error.orig).split())
            raise RetuneError(f"PostgreSQL rejects a row of {table.name}, nothing was written: {message}") from None
        advance_sequences(target, table)


def advance_sequences(target: sa.Connection, table: sa.Table) -> None:
    """Set a table's sequences to the highest existing value."""
    for column in table.primary_key:
        if name := target.execute(sa.select(sa.func.pg_get_serial_sequence(f'"{table.name}"', column.name))).scalar():
            highest = sa.select(sa.func.max(column)).scalar_subquery()
            target.execute(sa.select(sa.func.setval(name, sa.func.coalesce(highest, 1), highest.is_not(None))))


def first_difference(first: Mapping[str, Content], second: Mapping[str, Content]) -> str | None:
    """Describe the first table in which two databases differ; None if they are equal."""
    for name in sorted(first):
        if first[name] != second[name]:
            return f"{name} ({first[name].rows:,} rows against {second[name].rows:,})"
    return None
