"""The list of rows that is stored with a run."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from components.artifacts.rows import write_rows as write_table
from components.mlflow_store.tracking.rows import digest_text, write_rows


def put(workspace: Path, file: str, **columns: list[str | None]) -> None:
    path = workspace / file
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pd.DataFrame(columns), path)


def test_every_row_is_listed_with_its_use(tmp_path: Path) -> None:
    put(tmp_path, "data/prepared/learn/train.parquet", id=["b"], group=["g"], text=["two"], label=["x"])
    put(tmp_path, "data/prepared/test/test.parquet", id=["a"], group=["g"], text=["one"], label=["x"])
    put(tmp_path, "data/prepared/removed.parquet", id=["c"], reason=["exact duplicate"], text=["two"], label=["x"])
    put(tmp_path, "data/validated/quarantine.parquet", id=["d"], reason=["empty text"], text=[None], label=["x"])

    listed = pq.read_table(write_rows(tmp_path, tmp_path)).to_pandas()

    assert dict(zip(listed["id"], listed["split"], strict=True)) == {
        "a": "tested on",
        "b": "trained on",
        "c": "removed: exact duplicate",
        "d": "quarantined: empty text",
    }
    assert listed["text"].tolist() == [digest_text("one"), digest_text("two"), digest_text("two"), ""]


def test_workspace_without_rows_has_an_empty_list(tmp_path: Path) -> None:
    assert pq.read_table(write_rows(tmp_path, tmp_path)).num_rows == 0
