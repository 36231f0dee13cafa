"""A value has the same text for every reader, file and type."""

import json
import logging
import sqlite3
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.artifacts.rows import read_snapshot
from components.core.errors import BadSource
from components.data.snapshot import SnapshotParams, take_snapshot
from components.data.snapshot.cells import as_text

SEVENS = [7, 7.0, Decimal(7), Decimal("7.00"), np.int8(7), np.uint64(7), np.float16(7), np.float32(7), np.float64(7)]
TEXTS: list[tuple[Any, str | None]] = [
    *((seven, "7") for seven in SEVENS),
    (-0.0, "0"),
    (Decimal("-0.00"), "0"),
    (2**63, "9223372036854775808"),
    (float(2**63), "9223372036854775808"),
    (1e20, "1" + "0" * 20),
    (Decimal("1E+20"), "1" + "0" * 20),
    (2.5, "2.5"),
    (Decimal("2.50"), "2.5"),
    (1e-7, "0.0000001"),
    (Decimal("1E-7"), "0.0000001"),
    (np.float32(0.1), "0.1"),
    (True, "true"),
    (np.False_, "false"),
    (float("nan"), None),
    (np.float32("nan"), None),
    (Decimal("NaN"), None),
    (float("-inf"), "-inf"),
    (Decimal("-Infinity"), "-inf"),
    ([1.0, Decimal("2.0"), float("nan"), None, True], "[1, 2, null, null, true]"),
    ({"a": {"b": 1.0}, "c": "1.0"}, '{"a": {"b": 1}, "c": "1.0"}'),
    ("1.0", "1.0"),
    ("nan", "nan"),
    (datetime(2026, 3, 1, 1, tzinfo=timezone(timedelta(hours=1))), "2026-03-01T00:00:00+00:00"),
    (datetime(2026, 3, 1, tzinfo=UTC), "2026-03-01T00:00:00+00:00"),
    (pd.Timedelta(days=1), "1 day, 0:00:00"),
    (timedelta(days=1), "1 day, 0:00:00"),
]


@pytest.mark.parametrize(("value", "text"), TEXTS, ids=[repr(value) for value, _ in TEXTS])
def test_value_has_one_text(value: Any, text: str | None) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize("value", [b"a", bytearray(b"a"), memoryview(b"a")])
def test_bytes_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="binary data"):
        as_text(value)


def take(root: Path, source: str, **settings: Any) -> pd.DataFrame:
    params = SnapshotParams.parse({"source": source, **settings}, "snapshot")
    take_snapshot(root, root / "raw", snapshot=params, environment={"RETUNE_SQL_T": f"sqlite:///{root}/t.db"})
    return read_snapshot(root / "raw").sort_values("text", ignore_index=True)


NUMBERS: dict[str, pa.Array] = {
    "int64": pa.array([1000, 7, None], pa.int64()),
    "double": pa.array([1000, 7, None], pa.float64()),
    "NaN": pa.array([1000.0, 7.0, float("nan")]),
    "float": pa.array([1000, 7, None], pa.float32()),
    "uint64": pa.array([1000, 7, None], pa.uint64()),
    "int8 in a dictionary": pa.array([1000, 7, None], pa.int16()).dictionary_encode(),
    "decimal": pa.array([Decimal(1000), Decimal(7), None], pa.decimal128(10, 2)),
    "string": pa.array(["1000", "7", None]),
    "large string": pa.array(["1000", "7", None], pa.large_string()),
}


def parquet(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path)


@pytest.mark.parametrize("type_", NUMBERS)
def test_whole_numbers_of_parquet_have_one_text(tmp_path: Path, type_: str) -> None:
    parquet(tmp_path / "rows.parquet", text=["a", "b", "c"], group=NUMBERS[type_])

    assert take(tmp_path, "rows.parquet")["group"].astype(object).where(lambda cell: cell.notna(), None).tolist() == ["1000", "7", None]


def test_whole_numbers_of_all_formats_have_one_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a", "b", "c"], "id": [1, 2, 3], "group": [1000, 7, None], "label": [0, 1, None]})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_csv(tmp_path / "rows.tsv", index=False, sep="\t")
    frame.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    (tmp_path / "floats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in frame.iloc[:2].to_dict("records")), encoding="utf-8")
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.astype({"group": "Int64", "label": "Int8"}).to_parquet(tmp_path / "nullable.parquet")
    with sqlite3.connect(tmp_path / "t.db") as connection:
        frame.to_sql("t", connection, index=False)
    connection.close()

    for source in ("rows.csv", "rows.tsv", "rows.jsonl", "floats.jsonl", "rows.parquet", "nullable.parquet", "sql://t"):
        rows = take(tmp_path, source, **({"query": "SELECT * FROM t"} if source == "sql://t" else {})).head(2)
        assert rows[["id", "group", "label"]].to_numpy().tolist() == [["1", "1000", "0"], ["2", "7", "1"]], source


def test_nested_numbers_have_one_text(tmp_path: Path) -> None:
    expected = '{"start": [1, 2], "score": 0.1}'
    ints = pa.array([{"start": [1, 2], "score": 0.1}], pa.struct({"start": pa.list_(pa.int32()), "score": pa.float32()}))
    floats = pa.array([{"start": [1, 2], "score": 0.1}], pa.struct({"start": pa.list_(pa.float32()), "score": pa.float64()}))
    parquet(tmp_path / "a.parquet", text=["a"], spans=ints)
    parquet(tmp_path / "b.parquet", text=["a"], spans=floats)
    (tmp_path / "c.jsonl").write_text('{"text": "a", "spans": {"start": [1.0, 2], "score": 0.10}}', encoding="utf-8")

    for name in ("a.parquet", "b.parquet", "c.jsonl"):
        assert take(tmp_path, name)["spans"].tolist() == [expected], name


def test_different_types_of_a_column_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parquet(tmp_path / "a.parquet", text=["a"], group=pa.array([1000], pa.int64()), none=pa.nulls(1))
    parquet(tmp_path / "b.parquet", text=["b"], group=pa.array([1000.0]), none=["x"])
    (tmp_path / "a.jsonl").write_text('{"text": "a", "group": 1, "same": null}\n', encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "b", "group": 1.0, "same": "x"}\n', encoding="utf-8")

    rows = take(tmp_path, "?.parquet")
    assert set(rows["group"]) == {"1000"}
    assert "the column 'group' has different types: int64 in a.parquet, double in b.parquet" in caplog.text
    take(tmp_path, "?.jsonl")
    assert "the column 'group' has different types: integer in a.jsonl, number in b.jsonl" in caplog.text
    assert "'none'" not in caplog.text
    assert "'same'" not in caplog.text


def test_csv_numbers_in_two_forms_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.csv").write_text("text,group,size\na,1000,7\nb,12.50,007\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("text,group,size\nc,1000.0,7.0\nd,1000.00,7.0\n", encoding="utf-8")

    rows = take(tmp_path, "?.csv")

    assert rows["group"].tolist() == ["1000", "12.50", "1000", "1000"]
    assert rows["size"].tolist() == ["7", "007", "7.0", "7.0"]
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert [message.partition(":")[0] for message in warnings] == [
        "the column 'group' has whole numbers with a decimal point, such as 1000.0",
        "the column 'size' has whole numbers with a decimal point (7.0) and without",
    ]


def test_time_out_of_range_is_reported(tmp_path: Path) -> None:
    parquet(tmp_path / "rows.parquet", text=["a"], at=pa.array([2**60], pa.timestamp("ms")))

    with pytest.raises(BadSource, match=r"rows\.parquet: rows 1 to .*column 'at' cannot be read as text"):
        take(tmp_path, "rows.parquet")
