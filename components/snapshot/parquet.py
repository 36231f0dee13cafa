"""Parquet: read batch by batch; values become text as they do in JSONL."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.snapshot.cells import as_text
from components.snapshot.decoding import refuse_empty
from components.snapshot.faults import Faults
from components.snapshot.settings import SnapshotParams

_BATCH = 4096  # rows


def read_columns(path: Path, snapshot: SnapshotParams, faults: Faults) -> list[str]:
    """Return the names of the file's columns."""
    refuse_empty(path, faults)
    try:
        with pq.ParquetFile(path) as file:
            columns: list[str] = file.schema_arrow.names
    except (pa.ArrowException, OSError) as error:
        faults.add(f"not a Parquet file: {error}")
        faults.settle()
        raise AssertionError("unreachable") from error
    for name in sorted({name for name in columns if columns.count(name) > 1}):
        faults.add(f"the column {name!r} is there more than once")
    faults.settle()
    return columns


def read_rows(path: Path, snapshot: SnapshotParams, columns: Sequence[str], faults: Faults) -> Iterator[Sequence[str | None]]:
    """Yield the rows as text."""
    first = 1
    with pq.ParquetFile(path) as file:
        try:
            for batch in file.iter_batches(batch_size=_BATCH):
                yield from zip(*(_texts(name, batch.column(name)) for name in columns), strict=True)
                first += batch.num_rows
        except (pa.ArrowException, OSError, ValueError) as error:
            faults.add(f"rows {first} to {first + _BATCH - 1}: {error}")


def _texts(name: str, column: pa.Array) -> list[str | None]:
    try:
        values: list[object] = column.to_pylist()
        return list(values) if pa.types.is_string(column.type) else [as_text(value) for value in values]  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"column {name!r} cannot be read as text: {error}") from error
