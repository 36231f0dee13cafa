"""A `learn` folder built from the tickets, for tests of tuning and training that need no preprocessing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from components.artifacts.rows import write_rows
from components.artifacts.training import ModelSpec
from components.model import tasks


def spec_of(*labels: str, max_length: int = 16) -> ModelSpec:
    """Return the specification of a text classifier with these labels."""
    return ModelSpec(task="text_classification", labels=labels, max_length=max_length, unicode_form="NFC")


def make_learn(
    folder: Path,
    base: Path,
    rows: pd.DataFrame,
    validation: int = 60,
    name: str = "text_classification",
    options: Mapping[str, Any] | None = None,
    max_length: int = 16,
) -> Path:
    """Encode the first `validation` rows for validation and the others for training."""
    task = tasks.load(name, options)
    (folder / "encoded").mkdir(parents=True)
    spec = ModelSpec(
        task=name,
        labels=task.labels_of(rows),
        max_length=max_length,
        unicode_form="NFC",
        options=task.Options.parse(dict(options or {}), "").model_dump(mode="json"),
    )
    spec = spec.model_copy(update={"options": {**spec.options, **task.fit_options(rows.iloc[validation:])}})
    tokenizer = task.load_tokenizer(base)
    for split, part in (("validation", rows.iloc[:validation]), ("train", rows.iloc[validation:])):
        write_rows(part.reset_index(drop=True), folder / f"{split}.parquet")
        table = task.encode(part, tokenizer, spec)
        with pa.OSFile(str(folder / "encoded" / f"{split}.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    spec.write(folder)
    return folder
