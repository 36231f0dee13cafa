"""Write rows to Parquet parts in the order of their hash, in constant memory.

An external bucket sort: rows go to 256 files by the first byte of their hash, and each file is sorted separately. Order, part
boundaries and row groups depend only on the rows, so the same rows in any order give the same bytes.
"""

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
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
    parts: list[FilePart] = []
    writer: _PartWriter | None = None
    bucket = -1
    for name, row in buckets.sorted():
        digest.update(bytes.fromhex(name))
        if int(name[:2], 16) >> (8 - bits) != bucket:
            if writer is not None:
                parts.append(writer.close())
            bucket = int(name[:2], 16) >> (8 - bits)
            writer = _PartWriter(folder, columns)
        assert writer is not None
        writer.add(row)
    if writer is not None:
        parts.append(writer.close())
    return digest.hexdigest(), tuple(parts)


class _PartWriter:
    """Writes one Parquet file and names it by its content on close."""

    def __init__(self, folder: Path, columns: Sequence[str]) -> None:
        self._path = folder / "part.partial"
        self._schema = text_schema(columns)
        self._file = self._path.open("wb")
        self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd")
        self._group: list[bytes] = []
        self._bytes = 0
        self._rows = 0

    def add(self, row: bytes) -> None:
        self._group.append(row)
        self._bytes += len(row)
        self._rows += 1
        if len(self._group) >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush()

    def close(self) -> FilePart:
        self._flush()
        self._writer.close()
        self._file.close()
        digest = digest_file(self._path)
        path = self._path.with_name(f"part-{digest[:16]}.parquet")
        os.replace(self._path, path)
        return FilePart(name=path.name, sha256=digest, bytes=path.stat().st_size, rows=self._rows)

    def _flush(self) -> None:
        if self._group:
            columns = zip(*json.loads(b"[" + b",".join(self._group) + b"]"), strict=True)
            self._writer.write_table(pa.table([pa.array(cells, pa.string()) for cells in columns], schema=self._schema))
        self._group, self._bytes = [], 0
