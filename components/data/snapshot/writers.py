"""Write rows to a file in one of the source formats; `read_file` reads back the same rows."""

import csv
import json
from pathlib import Path
from typing import IO

import pandas as pd

from components.artifacts.rows import write_rows
from components.core.atomic import replacing
from components.core.errors import BadData
from components.data.snapshot.delimited import QUOTING
from components.data.snapshot.settings import SnapshotParams
from components.data.snapshot.tables import format_of


def write_file(rows: pd.DataFrame, path: Path, snapshot: SnapshotParams) -> None:
    """Write `rows` of text to `path` in the format of its extension and the encoding of `snapshot`, atomically.

    CSV has no null: a missing cell is written as an empty one.

    Raises:
        BadSource: the extension is unknown.
        BadData: the encoding lacks a character, or a cell needs quotes and `snapshot.quoting` is none.
    """
    file_format = format_of([path])
    cells = rows.astype(object).where(rows.notna(), None)
    try:
        with replacing(path) as partial:
            if file_format == "parquet":
                write_rows(rows, partial)
                return
            with partial.open("w", encoding=snapshot.encoding, newline="") as file:
                if file_format == "jsonl":
                    for row in cells.to_dict("records"):
                        file.write(json.dumps({name: cell for name, cell in row.items() if cell is not None}, ensure_ascii=False) + "\n")
                else:
                    _write_delimited(cells, file, file_format, snapshot)
    except UnicodeEncodeError as error:
        raise BadData(f"{path}: snapshot.encoding {snapshot.encoding} has no character {error.object[error.start]!r}") from None
    except csv.Error as error:
        raise BadData(f"{path}: with snapshot.quoting none, no cell can contain the delimiter or a line end: {error}") from None


def _write_delimited(cells: pd.DataFrame, file: IO[str], file_format: str, snapshot: SnapshotParams) -> None:
    delimiter = snapshot.delimiter or ("\t" if file_format == "tsv" else ",")
    # Quote every cell: by default the writer leaves a lone \r bare.
    quoting = {**QUOTING[snapshot.quoting or "double"]} | ({} if snapshot.quoting == "none" else {"quoting": csv.QUOTE_ALL})
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n", **quoting)
    writer.writerow(list(cells.columns))
    for row in cells.itertuples(index=False):
        if snapshot.quoting == "none" and any(cell and ("\r" in cell or "\n" in cell) for cell in row):
            raise csv.Error(f"a line end in {row[0]!r:.80}")
        writer.writerow(row)
