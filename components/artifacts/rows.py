"""Rows at a step's border: Parquet files whose columns are all text, with null for a cell that is not there.

Reads and writes row files, and reads a snapshot after checking every part against its manifest.
"""

import hashlib
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
"""The order of the columns that Retune knows; the others follow by name."""

PSEUDO = "pseudo"
"""The column that marks a label as a model's answer: it names the version, NAME/VERSION; blank where a person gave the label."""

MARKS = (PSEUDO, "confidence")
"""The columns that come with such labels; a file of a source may lack them."""

GIVEN_SPLIT = "given_split"
"""The column that has the split which the source gives a row: train, validation or test; null where it gives none."""

AUGMENTED = "augmented"
"""The column that marks a training row as a noisy copy: the id of the row that it was made of; null in that row."""

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def in_order(columns: Sequence[str]) -> list[str]:
    """Return the column names in canonical order, whatever their order in the source."""
    known = [name for name in LEADING if name in columns]
    return [*known, *sorted(name for name in columns if name not in LEADING)]


def pseudo_labelled(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Return for each of `rows` whether its label is a model's answer."""
    if PSEUDO not in rows:
        return pd.Series(False, index=rows.index, dtype=bool)
    return rows[PSEUDO].fillna("").str.strip().ne("")


def text_schema(columns: Sequence[str]) -> pa.Schema:
    """Return the schema in which every column is nullable text."""
    return pa.schema([(name, pa.string()) for name in columns])


def canonical(cells: Sequence[str | None]) -> bytes:
    """Return one row as the bytes that are hashed: JSON on one line, in which null and an empty text differ."""
    return _JSON.encode(cells).encode()


def row_hash(cells: Sequence[str | None]) -> str:
    """Return the sha256 of a row whose cells are in canonical order."""
    return hashlib.sha256(canonical(cells)).hexdigest()


def write_rows(frame: pd.DataFrame, path: Path) -> None:
    """Write a table of text; the same rows give the same bytes, whatever the frame's index.

    Raises:
        RetuneError: a column holds something other than text and nulls.
    """
    try:
        table = pa.Table.from_pandas(frame, schema=text_schema(list(frame.columns)), preserve_index=False)
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise RetuneError(f"{path} takes text columns only: {error}") from error
    pq.write_table(table.replace_schema_metadata(None), path, compression="zstd")


def read_rows(path: Path) -> pd.DataFrame:
    """Read what `write_rows` wrote.

    Raises:
        NotThere: the file is missing or is not Parquet.
    """
    try:
        frame: pd.DataFrame = pq.read_table(path).to_pandas()
        return frame
    except FileNotFoundError:
        raise NotFound(f"{path} is missing: the step that writes it has not run; `dvc repro` runs all of them") from None
    except (pa.ArrowException, OSError) as error:
        raise NotFound(f"{path} cannot be read ({error}); `dvc checkout` brings it back") from None


def read_parts(folder: Path) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a snapshot in canonical order, each part checked against the manifest before it is read.

    Raises:
        NotThere: the manifest or a part is missing, or a part is not the file that the manifest names.
    """
    for part in SnapshotManifest.read(folder).parts:
        verify(folder, part)
        with pq.ParquetFile(folder / part.name) as file:
            yield from file.iter_batches()


def read_snapshot(folder: Path) -> pd.DataFrame:
    """Read a whole snapshot, checked as in `read_parts`, with the columns in canonical order."""
    schema = text_schema(SnapshotManifest.read(folder).columns)
    frame: pd.DataFrame = pa.Table.from_batches(list(read_parts(folder)), schema).to_pandas()
    return frame


def verify(folder: Path, part: FilePart) -> None:
    """Compare a file with the hash that the manifest has for it.

    Raises:
        NotThere: the file is missing or its bytes are others.
    """
    path = folder / part.name
    mend = f"`dvc checkout --force {folder}` brings it back"
    if not path.is_file():
        raise NotFound(f"{path} is missing, and {folder}/manifest.json lists it; {mend}")
    found = digest_file(path)
    if found != part.sha256:
        raise NotFound(f"{path} is corrupt: its sha256 is {found[:12]}…, and {folder}/manifest.json has {part.sha256[:12]}…; {mend}")
