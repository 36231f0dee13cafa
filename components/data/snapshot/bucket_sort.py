"""Write rows to Parquet parts in the order of their hash, in constant memory.

An external bucket sort: rows go to 256 files by the first byte of their hash, and each file is sorted separately. Order, part
boundaries and row groups depend only on the rows, so the same rows in any order give the same bytes.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.manifest import FilePart
from components.artifacts.rows import canonical, text_schema
from components.core.hashing import digest_file

_BUFFER = 64 << 20  # bytes of rows in memory before they are appended to their buckets
_OVERHEAD = 120  # bytes that Python adds to a short row
_PART = 100_000  # approximate maximum of rows in a part
_GROUP_ROWS = 20_000  # of a row group
_GROUP_BYTES = 16 << 20

_HEX = 64  # characters of a sha256


class Buckets:
    """Rows on disk, partitioned by the first byte of their hash."""

    def __init__(self, folder: Path) -> None:
        self.rows = 0
        self._folder = folder
        self._folder.mkdir()
        self._buffered: defaultdict[str, list[bytes]] = defaultdict(list)
        self._bytes = 0

    def add(self, cells: Sequence[str | None]) -> None:
        """Add one row with its cells in canonical order."""
        row = canonical(cells)
        digest = hashlib.sha256(row).hexdigest()
        self._buffered[digest[:2]].append(digest.encode() + row)
        self._bytes += len(row) + _OVERHEAD
        self.rows += 1
        if self._bytes > _BUFFER:
            self.spill()

    def spill(self) -> None:
        """Append the buffered rows to their files."""
        for name, rows in self._buffered.items():
            with (self._folder / name).open("ab") as file:
                file.write(b"\n".join(rows) + b"\n")
        self._buffered.clear()
        self._bytes = 0

    def sorted(self) -> Iterator[tuple[str, bytes]]:
        """Yield hash and bytes of every row in the order of the hashes; remove each file after reading it."""
        self.spill()
        for path in sorted(self._folder.iterdir()):
            with path.open("rb") as file:
                counts = Counter(file)  # many copies of one row take the memory of one
            path.unlink()
            for line in sorted(counts):
                for _ in range(counts[line]):
                    yield line[:_HEX].decode(), line[_HEX:]
        self._folder.rmdir()


def write_parts(buckets: Buckets, columns: Sequence[str], folder: Path) -> tuple[str, tuple[FilePart, ...]]:
    """Write the parts to `folder`; return the digest of the rows, and the parts in the order of their rows."""
    digest = hashlib.sha256(canonical(columns))
    bits = max(0, min(8, ((buckets.rows - 1) // _PART).bit_length()))

    def digested(rows: Iterator[tuple[str, bytes]]) -> Iterator[bytes]:
        for name, row in rows:
            digest.update(bytes.fromhex(name))
            yield row

    by_part = groupby(buckets.sorted(), lambda row: int(row[0][:2], 16) >> (8 - bits))
    parts = tuple(_write_part(digested(rows), columns, folder) for _, rows in by_part)
    return digest.hexdigest(), parts


def _write_part(rows: Iterator[bytes], columns: Sequence[str], folder: Path) -> FilePart:
    """Write one Parquet file and name it by its content."""
    partial, schema, written = folder / "part.partial", text_schema(columns), 0
    with partial.open("wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _row_groups(rows):
            cells = zip(*json.loads(b"[" + b",".join(group) + b"]"), strict=True)
            writer.write_table(pa.table([pa.array(column, pa.string()) for column in cells], schema=schema))
            written += len(group)
    digest = digest_file(partial)
    path = partial.rename(folder / f"part-{digest[:16]}.parquet")
    return FilePart(name=path.name, sha256=digest, bytes=path.stat().st_size, rows=written)


def _row_groups(rows: Iterator[bytes]) -> Iterator[list[bytes]]:
    group, size = list[bytes](), 0
    for row in rows:
        group.append(row)
        size += len(row)
        if len(group) >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group
