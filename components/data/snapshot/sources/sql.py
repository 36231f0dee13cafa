"""sql://NAME: the rows of `snapshot.query` from the database whose SQLAlchemy URL is in the variable RETUNE_SQL_NAME.

Streams the result to a Parquet file of text in constant memory. Never writes to the database.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.rows import text_schema
from components.core.errors import BadParams
from components.data.snapshot.cells import as_text
from components.data.snapshot.read_errors import Faults
from components.data.snapshot.sources import FetchedFiles, SourceRequest

if TYPE_CHECKING:
    from sqlalchemy import CursorResult

log = logging.getLogger(__name__)

SETTINGS = frozenset({"query"})

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_ROWS = 1_000  # rows in memory
_REPORT_EVERY = 100_000  # rows
# Executed first: all rows are read in one transaction, and times with a zone are returned in UTC instead of the session's zone.
_SETUP_STATEMENTS = {
    "postgresql": ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "SET LOCAL TIME ZONE 'UTC'"),
    "sqlite": ("PRAGMA query_only = ON",),
    "mysql": ("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "SET time_zone = '+00:00'"),
    "mariadb": ("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "SET time_zone = '+00:00'"),
}


def fetch(request: SourceRequest, folder: Path) -> FetchedFiles:
    """Run the query and write the result to `folder`.

    Raises:
        BadParams: snapshot.query is missing, or NAME is invalid.
        BadSource: the variable or the driver is missing, the database refuses the query, or the result is not a table.
        Unavailable: the database is unreachable.
    """
    path = folder / "rows.parquet"
    with _execute(request) as result:
        rows = _write(result, _columns(request, result), path, Faults(request.address))
    log.info("%s returned %d rows", request.address, rows)
    return FetchedFiles({path: request.address}, request.address, "sql")


def describe(request: SourceRequest) -> str:
    """Return the columns of the query; raises as `fetch` does."""
    with _execute(request) as result:
        return f"connected to {result.dialect.name}; the query returns {', '.join(_columns(request, result))}"


@contextmanager
def _execute(request: SourceRequest) -> Iterator["CursorResult[Any]"]:
    """Yield the result of the query in a read-only transaction that is rolled back."""
    from components.data.sql import connect, url_of, variable_of

    query = request.settings.query
    if not _NAME.fullmatch(request.location):
        raise BadParams(
            "params.yaml: snapshot.source: expected sql://NAME with a name of letters, digits, - and _, found something else. Set the "
            "URL of the database in the environment variable RETUNE_SQL_NAME, never in params.yaml"
        )
    if query is None:
        raise BadParams(f"params.yaml: snapshot.query is missing for {request.address}: expected a SELECT")
    variable = variable_of(request.location)
    url = url_of(variable, request.environment)
    with connect(request.address, variable, url, action="snapshot.query") as connection:
        for statement in _SETUP_STATEMENTS.get(connection.dialect.name, ()):
            connection.exec_driver_sql(statement)
        # Without parameters, percent signs and colons are literal.
        with connection.execution_options(stream_results=True, no_parameters=True).exec_driver_sql(query) as result:
            yield result


def _columns(request: SourceRequest, result: "CursorResult[Any]") -> list[str]:
    faults = Faults(request.address)
    if not result.returns_rows:
        faults.refuse("snapshot.query returns no table: expected a SELECT")
    columns = [str(name) for name in result.keys()]  # noqa: SIM118  # a result is not a mapping
    for number, name in enumerate(columns, start=1):
        if not name.strip():
            faults.add(f"column {number} of snapshot.query has no name; add one: … AS name")
        elif columns.index(name) < number - 1:
            faults.add(f"snapshot.query returns the column {name!r} more than once; rename one: … AS other_name")
    faults.raise_if_any()
    return columns


def _write(result: "CursorResult[Any]", columns: Sequence[str], path: Path, faults: Faults) -> int:
    rows, schema = 0, text_schema(columns)
    with pq.ParquetWriter(path, schema) as writer:
        for block in result.partitions(_ROWS):
            cells = [
                pa.array([_text(value, name, rows + index, faults) for index, value in enumerate(values, start=1)], pa.string())
                for name, values in zip(columns, zip(*block, strict=True), strict=True)
            ]
            writer.write_table(pa.table(cells, schema=schema))
            rows += len(block)
            if rows % _REPORT_EVERY == 0:
                log.info("fetched %d rows from the database", rows)
    if not rows:
        faults.add("snapshot.query returns no rows; expected at least one")
    faults.raise_if_any()
    return rows


def _text(value: Any, column: str, row: int, faults: Faults) -> str | None:
    try:
        text = as_text(value)
        if text is not None and "\0" in text:
            raise ValueError("a NUL character, expected text")
    except (ValueError, OverflowError) as error:
        faults.add(f"row {row}: column {column!r} contains {error}")
        return None
    return text
