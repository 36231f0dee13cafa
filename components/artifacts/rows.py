"""Row files passed between steps: Parquet with text columns only, null for a missing cell.

Reads and writes row files, and reads snapshots after verifying each part against the manifest.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from components.artifacts.manifest import FilePart, SnapshotManifest
from components.core.errors import NotFound, RetuneError
from components.core.hashing import digest_file

LEADING = ("id", "group", "text", "label")
"""The order of the standard columns; other columns follow sorted by name."""

PSEUDO = "pseudo"
"""The column with the version that gave a pseudo-label, NAME/VERSION; blank for labels given by people."""

MARKS = (PSEUDO, "confidence")
"""The columns of pseudo-labels; optional in source files."""

GIVEN_SPLIT = "given_split"
"""The column with the split given by the source: train, validation or test; null if not given."""

AUGMENTED = "augmented"
"""The column with the id of the original row of a noisy copy; null in original rows."""

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def in_order(columns: Sequence[str]) -> list[str]:
    """Return the column names in canonical order."""
    return [*(name for name in LEADING if name in columns), *sorted(name for name in columns if name not in LEADING)]


def pseudo_labelled(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Return for each of `rows` whether its label is a pseudo-label."""
    if PSEUDO not in rows:
        return pd.Series(False, index=rows.index, dtype=bool)
    return rows[PSEUDO].fillna("").str.strip().ne("")


def text_schema(columns: Sequence[str]) -> pa.Schema:
    """Return the schema in which every column is nullable text."""
    return pa.schema([(name, pa.string()) for name in columns])


def canonical(cells: Sequence[str | None]) -> bytes:
    """Return the bytes of a row to hash: one line of JSON; null differs from an empty text."""
    return _JSON.encode(cells).encode()


def write_rows(frame: pd.DataFrame, path: Path) -> None:
    """Write a table of text; the same rows give the same bytes, regardless of the index.

    Raises:
        RetuneError: a column contains values that are neither text nor null.
    """
    try:
        table = pa.Table.from_pandas(frame, schema=text_schema(list(frame.columns)), preserve_index=False)
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise RetuneError(f"{path} may contain text columns only: {error}") from error
    pq.write_table(table.replace_schema_metadata(None), path, compression="zstd")


def read_rows(path: Path) -> pd.DataFrame:
    """Read a file of `write_rows`.

    Raises:
        NotFound: the file is missing or is not Parquet.
    """
    try:
        frame: pd.DataFrame = pq.read_table(path).to_pandas()
        return frame
    except FileNotFoundError:
        raise NotFound(f"{path} is missing: the step that writes it has not run; `dvc repro` runs all of them") from None
    except (pa.ArrowException, OSError) as error:
        raise NotFound(f"{path} cannot be read ({error}); `dvc checkout` restores it") from None


def read_parts(folder: Path) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a snapshot in canonical order; each part is verified before it is read.

    Raises:
        NotFound: the manifest or a part is missing, or a part does not match its hash.
    """
    for part in SnapshotManifest.read(folder).parts:
        verify(folder, part)
        with pq.ParquetFile(folder / part.name) as file:
            yield from file.iter_batches()


def read_snapshot(folder: Path) -> pd.DataFrame:
    """Read a whole snapshot, verified as in `read_parts`, with the columns in canonical order."""
    schema = text_schema(SnapshotManifest.read(folder).columns)
    frame: pd.DataFrame = pa.Table.from_batches(list(read_parts(folder)), schema).to_pandas()
    return frame


def verify(folder: Path, part: FilePart) -> None:
    """Compare a file with its hash in the manifest.

    Raises:
        NotFound: the file is missing or its hash differs.
    """
    path = folder / part.name
    fix = f"`dvc checkout --force {folder}` restores it"
    if not path.is_file():
        raise NotFound(f"{path} is missing but listed in {folder}/manifest.json; {fix}")
    if (digest := digest_file(path)) != part.sha256:
        raise NotFound(f"{path} is corrupt: its sha256 is {digest[:12]}…, expected {part.sha256[:12]}… ({folder}/manifest.json); {fix}")
