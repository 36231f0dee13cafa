"""A database copied row by row from SQLite into PostgreSQL, where both have the same tables: in one transaction, and counted.

Ids, numbers and moments stay as they are; what is written differently is what the caller rewrites: the places of files.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
import sqlalchemy.exc
from sqlalchemy.pool import NullPool

from components.core.errors import BadInput, RetuneError, Unavailable

ROWS = 1_000  # a batch
Rewrite = Callable[[str, dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Content:
    """What a table holds: how many rows, and a sum over their hashes, which does not hang on their order."""

    rows: int
    digest: str


def open_source(database: Path) -> sa.Engine:
    """Return an engine that reads a SQLite file and cannot write it."""
    return sa.create_engine(f"sqlite:///file:{quote(str(database))}?mode=ro&uri=true", poolclass=NullPool)


def open_target(url: str, what: str) -> sa.Engine:
    """Return an engine of a PostgreSQL database that answers; an error never shows the password.

    Raises:
        BadInput: PostgreSQL refuses us, or has no such database.
        Unavailable: it does not answer.
    """
    engine = sa.create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 10})
    try:
        engine.connect().close()
    except sqlalchemy.exc.OperationalError as error:
        said = " ".join(str(error.orig).split())
        refused = "authentication failed" in said or "does not exist" in said or "permission denied" in said
        raise (BadInput if refused else Unavailable)(f"{what} {engine.url} cannot be used: {said}") from None
    return engine


def reflect(connection: sa.Connection) -> sa.MetaData:
    """Return the tables that are there."""
    metadata = sa.MetaData()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sa.exc.SAWarning)  # of indexes that SQLAlchemy does not know
        metadata.reflect(connection)
    for table in metadata.tables.values():
        for column in table.c:
            if isinstance(column.type, sa.JSON):
                column.type.none_as_null = True
    return metadata


def contents(
    connection: sa.Connection, tables: sa.MetaData, names: Collection[str], like: sa.MetaData, rewrite: Rewrite
) -> dict[str, Content]:
    """Return what each table holds, read as the tables `like` would hold it; one that is not there is empty."""
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
    """Yield the rows of a table as the table of the same name in `like` holds them; none where it is not there."""
    if name not in tables.tables:
        return
    table, wanted = tables.tables[name], like.tables[name]
    query = sa.select(*(sa.type_coerce(column, sa.types.NullType()).label(column.name) for column in table.c))  # as the driver reads it
    for row in connection.execute(query.execution_options(yield_per=ROWS)).mappings():
        yield rewrite(name, {column: _typed(value, wanted.c[column].type) for column, value in row.items()})


def _typed(value: Any, kind: sa.types.TypeEngine[Any]) -> Any:
    if value is None:
        return None
    if isinstance(kind, sa.Boolean):
        return bool(value)
    if isinstance(kind, sa.Float):
        return float(value)
    if isinstance(kind, sa.JSON):
        return json.loads(value) if isinstance(value, str) else value
    if isinstance(kind, sa.DateTime) and isinstance(value, str):
        return datetime.fromisoformat(value)
    return value


def copy(
    source: sa.Connection, target: sa.Connection, tables: tuple[sa.MetaData, sa.MetaData], names: Collection[str], rewrite: Rewrite
) -> None:
    """Insert the rows of the tables `names` into those of the same name, which are empty, and set the numbers that follow.

    Raises:
        RetuneError: the target refuses a row.
    """
    there, here = tables
    for table in here.sorted_tables:  # what others refer to comes first
        if table.name not in names:
            continue
        try:
            for batch in batches(rows_of(source, there, table.name, here, rewrite)):
                target.execute(table.insert(), batch)
        except sqlalchemy.exc.DBAPIError as error:
            said = " ".join(str(error.orig).split())
            raise RetuneError(f"PostgreSQL refuses a row of {table.name}, nothing was written: {said}") from None
        follow(target, table)


def batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield rows in lists."""
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def follow(target: sa.Connection, table: sa.Table) -> None:
    """Let the numbers that a table gives to new rows go on after the highest that is there."""
    for column in table.primary_key:
        name = target.execute(sa.select(sa.func.pg_get_serial_sequence(f'"{table.name}"', column.name))).scalar()
        if name:
            highest = sa.select(sa.func.max(column)).scalar_subquery()
            target.execute(sa.select(sa.func.setval(name, sa.func.coalesce(highest, 1), highest.is_not(None))))


def first_difference(one: Mapping[str, Content], other: Mapping[str, Content]) -> str | None:
    """Return in which table two databases differ, and how; None where they are equal."""
    for name in sorted(one):
        if one[name] != other[name]:
            return f"{name} ({one[name].rows:,} rows against {other[name].rows:,})"
    return None
