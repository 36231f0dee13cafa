"""Read the rows to score piece by piece from files of one format; Parquet keeps its types, other formats are text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.rows import text_schema
from components.core.errors import BadSource
from components.core.hashing import digest_file, digest_value
from components.data.snapshot import SnapshotParams, delimited, jsonl
from components.data.snapshot.cells import as_text
from components.data.snapshot.features import ColumnType
from components.data.snapshot.parquet import batch_size
from components.data.snapshot.read_errors import Faults, readable, short_list
from components.data.snapshot.tables import READERS, format_of

_ROWS = 4_096  # per piece


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of `source`; `first` is the number of the first row (from 1), `cells` are the original values of the inputs."""

    source: str
    first: int
    table: pa.Table
    cells: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def slice(self, start: int, stop: int) -> "Piece":
        """Return the rows from `start` to before `stop`, counted from 0."""
        cells = {name: values[start:stop] for name, values in self.cells.items()}
        return Piece(self.source, self.first + start, self.table.slice(start, stop - start), cells)


class Files:
    """Files of one format with the same columns, read according to `settings`."""

    def __init__(
        self, files: Mapping[Path, str], settings: SnapshotParams, name: str, list_files: Callable[[], Sequence[Path]] | None = None
    ) -> None:
        """Read the columns of every file. Messages use the names in `files`, and `name` for all files together.

        `list_files` lists the files again, if they can change.

        Raises:
            BadSource: a file cannot be read, or its columns differ from those of the first.
        """
        self.paths, self.name = list(files), name
        self._names, self._settings, self._list_files = dict(files), settings, list_files
        self._format = format_of(self.paths)
        self._columns: dict[Path, dict[str, ColumnType]] = {}
        for path in self.paths:
            with readable(files[path]):
                self._columns[path] = READERS[self._format].read_columns(path, settings, Faults(files[path]))
            self._check_columns(path)
        self.schema = self._schema()

    def digest(self) -> str:
        """Return a hash of the bytes of all files, in order."""
        with readable(self.name):
            return digest_value([self._format, *map(digest_file, self.paths)])

    def changed(self, digest: str) -> bool:
        """Return whether the files differ from those with this `digest`."""
        with readable(self.name):
            current = self.paths if self._list_files is None else list(self._list_files())
        return current != self.paths or self.digest() != digest

    def pieces(self, inputs: Mapping[str, str]) -> Iterator[Piece]:
        """Yield all rows in order; `inputs` maps each input to its column. Raise BadSource, with every fault, if a file is malformed."""
        read = {"parquet": self._read_parquet, "jsonl": self._read_jsonl}.get(self._format, self._read_delimited)
        for path in self.paths:
            first, name, faults = 1, self._names[path], Faults(self._names[path])
            with readable(name):
                for table, cells in read(path, inputs, faults):
                    yield Piece(name, first, table, cells)
                    first += table.num_rows
            faults.raise_if_any()

    def _check_columns(self, path: Path) -> None:
        expected, actual = self._columns[self.paths[0]], self._columns[path]
        if set(expected) != set(actual):
            differs = short_list(name for name in [*expected, *actual] if (name in expected) != (name in actual))
            raise BadSource(f"{self._names[path]}: expected the same columns as in {self.paths[0].name}, found differences in {differs}")

    def _schema(self) -> pa.Schema:
        if self._format != "parquet":
            return text_schema(list(self._columns[self.paths[0]]))
        schemas = [
            pa.schema([(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in pq.read_schema(path)])
            for path in self.paths
        ]
        try:
            return pa.unify_schemas(schemas)  # an empty column gets its type from the other files
        except pa.ArrowException as error:
            raise BadSource(f"{self.name}: a column has different types in different files: {error}") from error

    def _read_parquet(self, path: Path, inputs: Mapping[str, str], faults: Faults) -> Iterator[tuple[pa.Table, dict[str, list[Any]]]]:
        first = 1
        with pq.ParquetFile(path) as file:
            size = batch_size(file.metadata)
            try:
                for batch in file.iter_batches(size):
                    table = pa.Table.from_batches([batch]).select(self.schema.names).cast(self.schema)
                    yield table, {name: table.column(column).to_pylist() for name, column in inputs.items()}
                    first += batch.num_rows
            except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
                faults.add(f"rows {first} to {first + size - 1}: {error}")

    def _read_delimited(self, path: Path, inputs: Mapping[str, str], faults: Faults) -> Iterator[tuple[pa.Table, dict[str, list[Any]]]]:
        """Yield rows in which empty cells of an input are None: CSV has no other notation for missing values."""
        columns = self._columns[path]
        rows = iter(delimited.read_rows(path, self._settings, columns, faults))
        while block := list(islice(rows, _ROWS)):
            table = dict(zip(columns, map(list, zip(*block, strict=True)), strict=True))
            yield self._text_table(table), {name: [cell or None for cell in table[column]] for name, column in inputs.items()}

    def _read_jsonl(self, path: Path, inputs: Mapping[str, str], faults: Faults) -> Iterator[tuple[pa.Table, dict[str, list[Any]]]]:
        rows = iter(jsonl.read_objects(path, self._settings, faults))
        while block := list(islice(rows, _ROWS)):
            table = {name: [as_text(row.get(name)) for row in block] for name in self._columns[path]}
            yield self._text_table(table), {name: [row.get(column) for row in block] for name, column in inputs.items()}

    def _text_table(self, columns: Mapping[str, Sequence[Any]]) -> pa.Table:
        return pa.table([pa.array(columns[name], pa.string()) for name in self.schema.names], schema=self.schema)
