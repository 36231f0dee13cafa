"""Read Parquet batch by batch; values become text as in JSONL."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.data.snapshot.cells import as_text
from components.data.snapshot.decoding import check_file_format
from components.data.snapshot.features import ColumnType, apply_class_names, class_names_from_schema
from components.data.snapshot.read_errors import Faults
from components.data.snapshot.settings import SnapshotParams

_BATCH = 4096  # rows
_BATCH_BYTES = 64 << 20  # of a batch, according to the file's metadata
_ROW, _CELL = 65, 3  # overhead in bytes of a row and of a cell, in addition to the text

Cells = list[str | None]


def read_columns(path: Path, snapshot: SnapshotParams, faults: Faults) -> dict[str, ColumnType]:
    """Return the columns of the file."""
    check_file_format(path, faults, b"PAR1")
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        faults.refuse(f"not a Parquet file: {error}")
    for number, name in enumerate(schema.names, start=1):
        if not name.strip():
            faults.add(f"column {number} has no name")
    for name in sorted(name for name, count in Counter(schema.names).items() if count > 1):
        faults.add(f"the column {name!r} appears more than once")
    faults.raise_if_any()
    names = class_names_from_schema(schema.metadata)
    return {field.name: ColumnType(_type_name(field.type), names.get(field.name)) for field in schema}


def read_rows(path: Path, snapshot: SnapshotParams, columns: Mapping[str, ColumnType], faults: Faults) -> Iterator[tuple[str | None, ...]]:
    """Yield the rows as text."""
    first = 1
    with _open(path) as file:
        size = batch_size(file.metadata)
        try:
            for batch in file.iter_batches(batch_size=size):
                yield from zip(*(_texts(name, batch.column(name), column) for name, column in columns.items()), strict=True)
                first += batch.num_rows
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            faults.add(f"rows {first} to {first + size - 1}: {error}")


def text_bytes(path: Path, limit: int) -> int:
    """Return the minimum size of the rows in bytes; counting stops above `limit`.

    A repeated text is stored once in the file, but takes its size in every row.
    """
    with _open(path) as file:
        total = int(file.metadata.num_rows) * (_ROW + _CELL * len(file.schema_arrow))
        if total > limit:
            return total
        with suppress(pa.ArrowException, OSError):  # `read_rows` reports the faulty rows
            for batch in file.iter_batches(batch_size=batch_size(file.metadata)):
                total += sum(map(_length, batch.columns))
                if total > limit:
                    break
    return total


def _open(path: Path) -> pq.ParquetFile:
    """Open a file so that a repeated text is held once in memory."""
    texts = [field.name for field in pq.read_schema(path) if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    return pq.ParquetFile(path, read_dictionary=texts)


def batch_size(metadata: pq.FileMetaData) -> int:
    """Return how many rows to read at a time, so that wide rows do not take more memory."""
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    widest = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    return max(1, min(_BATCH, _BATCH_BYTES // max(1, widest)))


def _length(column: pa.Array) -> int:
    if pa.types.is_dictionary(column.type) and _is_text(column.type.value_type):
        return int(pc.sum(pc.take(pc.binary_length(column.dictionary), column.indices)).as_py() or 0)
    return int(column.nbytes)


def _texts(name: str, column: pa.Array, column_type: ColumnType) -> Cells:
    try:
        if pa.types.is_dictionary(column.type):
            distinct = _texts(name, column.dictionary, column_type)
            return [None if index is None else distinct[index] for index in column.indices.to_pylist()]
        values, narrow = column.to_pylist(), _narrow(column.type)
        return [
            as_text(apply_class_names(value if narrow is None or value is None else narrow(value), column_type.names)) for value in values
        ]
    except (ValueError, OverflowError) as error:
        raise ValueError(f"column {name!r} cannot be read as text: {error}") from error


def _narrow(type_: pa.DataType) -> Callable[[Any], Any] | None:
    """Return a function that restores a float32 or float16, which Arrow widens to float64; None if the type contains none."""
    if pa.types.is_float32(type_) or pa.types.is_float16(type_):
        return np.float32 if pa.types.is_float32(type_) else np.float16
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        inner = _narrow(type_.value_type)
        return None if inner is None else lambda value: [None if item is None else inner(item) for item in value]
    if pa.types.is_struct(type_):
        fields = {field.name: narrow for field in type_ if (narrow := _narrow(field.type)) is not None}
        if fields:
            return lambda value: {key: fields[key](item) if key in fields and item is not None else item for key, item in value.items()}
    return None


def _type_name(type_: pa.DataType) -> str:
    """Return the type of a column's values, without its encoding."""
    if pa.types.is_dictionary(type_):
        return _type_name(type_.value_type)
    return "" if pa.types.is_null(type_) else "string" if _is_text(type_) else str(type_)


def _is_text(type_: pa.DataType) -> bool:
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))
