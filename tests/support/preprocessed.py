"""Rows as the stages `validate` and `preprocess` leave them."""

from pathlib import Path

import pandas as pd

from components.artifacts.rows import write_rows
from components.artifacts.validation import Check, ValidationReport
from components.data.preprocess.settings import PreprocessParams
from components.data.preprocess.step import preprocess

PARAMS = PreprocessParams(test_share=0.3, validation_share=0.2, max_length=32)


def write_validated(folder: Path, rows: pd.DataFrame, accepted: bool = True, grouped: bool | None = None) -> Path:
    """Write the outputs of `validate` for rows that were all kept; return the folder."""
    folder.mkdir(parents=True)
    write_rows(rows, folder / "kept.parquet")
    check = Check(name="labels", scope="suite", column="label", passed=accepted, expected="2", observed="1", failures=int(not accepted))
    counts = {"rows_in": len(rows), "kept": len(rows), "quarantined": 0, "reasons": {}}
    ValidationReport(snapshot="s", accepted=accepted, checks=(check,), grouped=grouped, **counts).write(folder)
    return folder


def run_preprocess(folder: Path, base: Path, rows: pd.DataFrame, params: PreprocessParams = PARAMS, name: str = "one") -> Path:
    """Preprocess validated rows for text classification below `folder / name`; return the output folder."""
    out = folder / name / "prepared"
    preprocess(write_validated(folder / name / "validated", rows), base, out, task="text_classification", preprocess=params)
    return out
