"""A `learn` folder made by hand from the tickets, for tests of tuning and training that need no preprocessing."""

import gc
from pathlib import Path

import pandas as pd
import pyarrow as pa

from components.artifacts.rows import write_rows
from components.artifacts.training import ModelSpec
from components.tasks import text_classification as task

import components.learning.fitting  # noqa: F401  isort: skip

gc.freeze()  # each training collects garbage twice, and torch brings a million objects to look at


def make_learn(folder: Path, base: Path, rows: pd.DataFrame, validation: int = 60) -> Path:
    """Encode the first `validation` rows for validation and the others for training."""
    (folder / "encoded").mkdir(parents=True)
    spec = ModelSpec(task="text_classification", labels=task.labels_of(rows), max_length=16, unicode_form="NFC")
    tokenizer = task.load_tokenizer(base)
    for name, part in (("validation", rows.iloc[:validation]), ("train", rows.iloc[validation:])):
        write_rows(part.reset_index(drop=True), folder / f"{name}.parquet")
        table = task.encode(part, tokenizer, spec.labels, spec.max_length)
        with pa.OSFile(str(folder / "encoded" / f"{name}.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    spec.write(folder)
    return folder
