"""Row files: text and nulls, with bytes that depend only on the rows."""

from pathlib import Path

import pandas as pd
import pytest

from components.artifacts.rows import canonical, in_order, read_rows, write_rows
from components.core.errors import NotFound, RetuneError

FRAME = pd.DataFrame({"id": ["1", "2"], "text": ["a", None], "label": ["NA", ""]})


def test_written_rows_are_read_back(tmp_path: Path) -> None:
    write_rows(FRAME, tmp_path / "one.parquet")
    write_rows(FRAME.set_index(pd.Index([7, 9])).astype(object), tmp_path / "two.parquet")

    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    pd.testing.assert_frame_equal(read_rows(tmp_path / "one.parquet"), FRAME)


def test_empty_table_keeps_its_columns(tmp_path: Path) -> None:
    write_rows(FRAME.head(0), tmp_path / "none.parquet")

    assert list(read_rows(tmp_path / "none.parquet").columns) == ["id", "text", "label"]


def test_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RetuneError, match="may contain text columns only"):
        write_rows(FRAME.assign(id=[1, 2]), tmp_path / "rows.parquet")


def test_missing_or_damaged_file_names_the_fix(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="dvc repro"):
        read_rows(tmp_path / "rows.parquet")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    with pytest.raises(NotFound, match="dvc checkout"):
        read_rows(tmp_path / "rows.parquet")


def test_null_and_empty_text_are_different_rows() -> None:
    assert canonical(["a", None]) != canonical(["a", ""]) != canonical(["a", "null"])
    assert canonical(["a", "b,c"]) != canonical(["a,b", "c"])


def test_canonical_columns_come_first() -> None:
    assert in_order(["zeta", "label", "alpha", "text", "id"]) == ["id", "text", "label", "alpha", "zeta"]
