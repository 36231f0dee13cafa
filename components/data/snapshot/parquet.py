"""Parquet: read batch by batch; values become text as they do in JSONL."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.data.snapshot.cells import as_text
from components.data.snapshot.decoding import refuse_other
from components.data.snapshot.features import ColumnType, of_schema, with_names
from components.data.snapshot.read_errors import Faults
from components.data.snapshot.settings import SnapshotParams

_BATCH = 4096  # rows
_BATCH_BYTES = 64 << 20  # of a batch, as far as the file declares them
_ROW, _CELL = 65, 3  # bytes that a row takes on its way, and a cell, beside their text

Cells = list[str | None]


def read_columns(path: Path, snapshot: SnapshotParams, faults: Faults) -> dict[str, ColumnType]:
    """Return the file's columns."""
    refuse_other(path, faults, b"PAR1")
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        faults.add(f"not a Parquet file: {error}")
        faults.settle()
        raise AssertionError("unreachable") from error
    for number, name in enumerate(schema.names, start=1):
        if not name.strip():
            faults.add(f"column {number} has no name")
    for name in sorted(name for name, count in Counter(schema.names).items() if count > 1):
        faults.add(f"the column {name!r} is there more than once")
    faults.settle()
    names = of_schema(schema.metadata)
    return {field.name: ColumnType(_kind(field.type), names.get(field.name)) for field in schema}


def read_rows(path: Path, snapshot: SnapshotParams, columns: Mapping[str, ColumnType], faults: Faults) -> Iterator[tuple[str | None, ...]]:
    """Yield the rows as text."""
    first = 1
    with _opened(path) as file:
        size = batch_size(file.metadata)
        try:
            for batch in file.iter_batches(batch_size=size):
                yield from zip(*(_texts(name, batch.column(name), column) for name, column in columns.items()), strict=True)
                first += batch.num_rows
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            faults.add(f"rows {first} to {first + size - 1}: {error}")


def text_bytes(path: Path, enough: int) -> int:
    """Return how many bytes the rows take at least, counted until there are more than `enough`.

    A text that is repeated is in the file once, and in the rows each time.
    """
    with _opened(path) as file:
        total = int(file.metadata.num_rows) * (_ROW + _CELL * len(file.schema_arrow))
        batches = file.iter_batches(batch_size=batch_size(file.metadata))
        while total <= enough:
            try:
                total += sum(_length(column) for column in next(batches).columns)
            except StopIteration:
                break
            except (pa.ArrowException, OSError):  # which reading the rows names by their numbers
                break
    return total


def _opened(path: Path) -> pq.ParquetFile:
    """Open a file so that a text which is repeated is held once."""
    texts = [field.name for field in pq.read_schema(path) if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    return pq.ParquetFile(path, read_dictionary=texts)


def batch_size(metadata: pq.FileMetaData) -> int:
    """Return how many rows to read at a time, so that a batch of wide ones takes no more memory."""
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    widest = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    return max(1, min(_BATCH, _BATCH_BYTES // max(1, widest)))


def _length(column: pa.Array) -> int:
    if pa.types.is_dictionary(column.type) and _is_text(column.type.value_type):
        return int(pc.sum(pc.take(pc.binary_length(column.dictionary), column.indices)).as_py() or 0)
    return int(column.nbytes)


def _texts(name: str, column: pa.Array, known: ColumnType) -> Cells:
    try:
        if pa.types.is_dictionary(column.type):
            different = _texts(name, column.dictionary, known)
            return [None if place is None else different[place] for place in column.indices.to_pylist()]
        values, exact = column.to_pylist(), _exact(column.type)
        return [as_text(with_names(value if exact is None or value is None else exact(value), known.names)) for value in values]
    except (ValueError, OverflowError) as error:
        raise ValueError(f"column {name!r} cannot be read as text: {error}") from error


def _exact(kind: pa.DataType) -> Callable[[Any], Any] | None:
    """Return what gives a value the shortest digits that mean it, since Arrow makes float64 of a narrower one; None where there is none."""
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        narrow = np.float32 if pa.types.is_float32(kind) else np.float16
        return lambda value: narrow(value)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = _exact(kind.value_type)
        return None if inner is None else lambda value: [None if item is None else inner(item) for item in value]
    if pa.types.is_struct(kind):
        fields = {field.name: exact for field in kind if (exact := _exact(field.type)) is not None}
        if fields:
            return lambda value: {key: fields[key](item) if key in fields and item is not None else item for key, item in value.items()}
    return None


def _kind(kind: pa.DataType) -> str:
    """Return the type of a column's values, without what only says how they are packed."""
    if pa.types.is_dictionary(kind):
        return _kind(kind.value_type)
    return "" if pa.types.is_null(kind) else "string" if _is_text(kind) else str(kind)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
