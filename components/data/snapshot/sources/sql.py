"""sql://NAME: the rows of `snapshot.query`, from the database whose SQLAlchemy address is in the variable RETUNE_SQL_NAME.

The answer is streamed into a Parquet file of text, so that memory does not grow with it. Nothing is ever written into the database.
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
_ROWS = 1_000  # that are held at a time
_TELL_EVERY = 100_000  # rows
# Said first. All rows are those of one moment. Times of a zone come out in the session's, which would else be that of the machine.
_OPENING = {
    "postgresql": ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "SET LOCAL TIME ZONE 'UTC'"),
    "sqlite": ("PRAGMA query_only = ON",),
    "mysql": ("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "SET time_zone = '+00:00'"),
    "mariadb": ("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "SET time_zone = '+00:00'"),
}


def bring(asked: SourceRequest, folder: Path) -> FetchedFiles:
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
    return FetchedFiles({path: asked.address}, asked.address, "sql")


def look(asked: SourceRequest) -> str:
    """Return the columns that the query gives; raises as `bring` does."""
    with _answer(asked) as result:
        return f"reached {result.dialect.name}; the query gives {', '.join(_columns(asked, result))}"


@contextmanager
def _answer(asked: SourceRequest) -> Iterator["CursorResult[Any]"]:
    """Give the answer to the query, of which `_ROWS` are fetched at a time; read only, and undone at the end."""
    from components.data.sql import connected, url_of

    variable, query = _variable(asked), asked.settings.query
    if query is None:
        raise BadParams(f"params.yaml: snapshot.query is missing, which {asked.address} is asked: expected a SELECT")
    url = url_of(variable, asked.environment)
    with connected(asked.address, variable, url, what="snapshot.query") as connection:
        for statement in _OPENING.get(connection.dialect.name, ()):
            connection.exec_driver_sql(statement)
        # No parameters: a percent sign, and a colon, are then what they are.
        with connection.execution_options(stream_results=True, no_parameters=True).exec_driver_sql(query) as result:
            yield result


def _variable(asked: SourceRequest) -> str:
    from components.data.sql import variable_of

    if not _NAME.fullmatch(asked.place):
        raise BadParams(
            "params.yaml: snapshot.source: expected sql://NAME, a name of letters, digits, - and _, found something else. The address of "
            "the database stands in the environment variable RETUNE_SQL_NAME, never in params.yaml"
        )
    return variable_of(asked.place)


def _columns(asked: SourceRequest, result: "CursorResult[Any]") -> list[str]:
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
    """Return a value as the text of a cell."""
    try:
        text = as_text(value)
        if text is not None and "\0" in text:
            raise ValueError("a NUL character, expected text")
    except (ValueError, OverflowError) as error:
        faults.add(f"row {row}: column {column!r} holds {error}")
        return None
    return text
