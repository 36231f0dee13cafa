"""Rows back into a file of the formats that a source may have: what `read_file` reads of it is what was written."""

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
    """Write `rows`, all of text, into `path`, in the format of its ending, encoded as `snapshot` says; by rename, so whole or not at all.

    CSV has no null: a cell that is not there is empty.

    Raises:
        BadSource: the ending is of no known format.
        BadData: a cell has a character that the encoding has not, or what cannot be written without quotes where there are none.
    """
    kind = format_of([path])
    cells = rows.astype(object).where(rows.notna(), None)
    try:
        with replacing(path) as partial:
            if kind == "parquet":
                write_rows(rows, partial)
                return
            with partial.open("w", encoding=snapshot.encoding, newline="") as file:
                if kind == "jsonl":
                    for row in cells.to_dict("records"):
                        file.write(json.dumps({name: cell for name, cell in row.items() if cell is not None}, ensure_ascii=False) + "\n")
                else:
                    _write_delimited(cells, file, kind, snapshot)
    except UnicodeEncodeError as error:
        raise BadData(f"{path}: {error.object[error.start]!r} is no character of snapshot.encoding {snapshot.encoding}") from None
    except csv.Error as error:
        raise BadData(f"{path}: with snapshot.quoting none, no cell can hold the delimiter or a line end: {error}") from None


def _write_delimited(cells: pd.DataFrame, file: IO[str], kind: str, snapshot: SnapshotParams) -> None:
    delimiter = snapshot.delimiter or ("\t" if kind == "tsv" else ",")
    # Otherwise every cell in quotes: the writer leaves a lone \r bare.
    quoting = {**QUOTING[snapshot.quoting or "double"]} | ({} if snapshot.quoting == "none" else {"quoting": csv.QUOTE_ALL})
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n", **quoting)
    writer.writerow(list(cells.columns))
    for row in cells.itertuples(index=False):
        if snapshot.quoting == "none" and any(cell and ("\r" in cell or "\n" in cell) for cell in row):
            raise csv.Error(f"a line end in {row[0]!r:.80}")
        writer.writerow(row)
