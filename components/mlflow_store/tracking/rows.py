"""Which row of the data went where, kept with the run: so that it can be asked years later which models saw a row.

Reads data/validated and data/prepared; writes `rows.parquet` with the columns id, split and text (the first 16 digits of the
text's sha256), ordered by id.
"""

import hashlib
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from components.artifacts.rows import AUGMENTED, PSEUDO
from components.artifacts.rows import write_rows as write_table

ROWS = "rows.parquet"
DIGITS = 16
# file of the workspace: what became of its rows; the rows of removed.parquet and quarantine.parquet say why they are there, and rows
# that a model has labelled say which
PLACES = {
    "data/prepared/learn/train.parquet": "trained on",
    "data/prepared/learn/validation.parquet": "validated on",
    "data/prepared/test/test.parquet": "tested on",
    "data/prepared/removed.parquet": "removed",
    "data/validated/quarantine.parquet": "quarantined",
}


def write_rows(workspace: Path, folder: Path) -> Path:
    """Write the list of the workspace's rows into `folder`; files that are not there give no rows."""
    nothing = pd.DataFrame({name: pd.Series(dtype="str") for name in ("id", "split", "text")})
    rows = pd.concat([nothing, *_tables(workspace)], ignore_index=True).sort_values(["id", "split"], kind="stable", ignore_index=True)
    path = folder / ROWS
    write_table(rows, path)
    return path


def digest_text(text: str | None) -> str:
    """Return the first digits of the sha256 of a text, by which a row without an id of its own is found; empty for no text."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS] if isinstance(text, str) else ""


def _tables(workspace: Path) -> Iterator[pd.DataFrame]:
    for file, place in PLACES.items():
        path = workspace / file
        if not path.exists():
            continue
        there = [name for name in ("id", "text", "reason", PSEUDO, AUGMENTED) if name in pq.read_schema(path).names]
        table = pq.read_table(path, columns=there).to_pandas()
        reasons = table["reason"] if "reason" in table else [_marked(row) for row in table.to_dict("records")]
        texts = table["text"] if "text" in table else [None] * len(table)
        yield pd.DataFrame(
            {
                "id": table["id"],
                "split": [f"{place}: {reason}" if reason else place for reason in reasons],
                "text": [digest_text(text) for text in texts],
            }
        )


def _marked(row: Mapping[Hashable, Any]) -> str | None:
    """Return what marks a row that was learnt from: a noisy copy, or a label that a version gave."""
    origin, version = row.get(AUGMENTED), row.get(PSEUDO)
    if isinstance(origin, str):
        return f"noisy copy of {origin}"
    return f"pseudo-label of {version.strip()}" if isinstance(version, str) and version.strip() else None
