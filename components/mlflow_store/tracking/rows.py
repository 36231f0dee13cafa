"""Record how each row of the data was used, so that the models that saw a row can be found later.

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
# File of the workspace: use of its rows. `removed` and `quarantined` rows also carry their reason, pseudo-labelled rows their model.
USES = {
    "data/prepared/learn/train.parquet": "trained on",
    "data/prepared/learn/validation.parquet": "validated on",
    "data/prepared/test/test.parquet": "tested on",
    "data/prepared/removed.parquet": "removed",
    "data/validated/quarantine.parquet": "quarantined",
}


def write_rows(workspace: Path, folder: Path) -> Path:
    """Write the list of the workspace's rows into `folder`; missing files are skipped."""
    empty = pd.DataFrame({name: pd.Series(dtype="str") for name in ("id", "split", "text")})
    rows = pd.concat([empty, *_tables(workspace)], ignore_index=True).sort_values(["id", "split"], kind="stable", ignore_index=True)
    path = folder / ROWS
    write_table(rows, path)
    return path


def digest_text(text: str | None) -> str:
    """Return the first digits of a text's sha256, which identify a row without its own id; empty for no text."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS] if isinstance(text, str) else ""


def _tables(workspace: Path) -> Iterator[pd.DataFrame]:
    for file, use in USES.items():
        path = workspace / file
        if not path.exists():
            continue
        columns = [name for name in ("id", "text", "reason", PSEUDO, AUGMENTED) if name in pq.read_schema(path).names]
        table = pq.read_table(path, columns=columns).to_pandas()
        reasons = table["reason"] if "reason" in table else [_origin(row) for row in table.to_dict("records")]
        texts = table["text"] if "text" in table else [None] * len(table)
        yield pd.DataFrame(
            {
                "id": table["id"],
                "split": [f"{use}: {reason}" if reason else use for reason in reasons],
                "text": [digest_text(text) for text in texts],
            }
        )


def _origin(row: Mapping[Hashable, Any]) -> str | None:
    """Return the origin of a generated training row: a noisy copy or a pseudo-label."""
    source, version = row.get(AUGMENTED), row.get(PSEUDO)
    if isinstance(source, str):
        return f"noisy copy of {source}"
    return f"pseudo-label of {version.strip()}" if isinstance(version, str) and version.strip() else None
