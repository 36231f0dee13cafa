"""Layouts of files that other programs write: a JSON array, pandas' row numbers, Excel's `sep=`, no header, and zoned times."""

import json
import logging
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.artifacts.rows import read_snapshot
from components.core.errors import BadSource
from components.data.snapshot import SnapshotParams
from components.data.snapshot.take import take_snapshot

ROWS = [("i1", "the router is broken", "network"), ("i2", "a charge, twice", "billing")]
HEADER = ["id", "text", "label"]


def take(folder: Path, name: str, content: str, **settings: object) -> pd.DataFrame:
    """Return the rows of a snapshot of a file with this content."""
    (folder / name).write_text(content, encoding="utf-8")
    take_snapshot(folder, folder / "raw", snapshot=SnapshotParams(source=name, **settings), required=("text", "label"))
    return read_snapshot(folder / "raw").sort_values("id", ignore_index=True)


def expected() -> pd.DataFrame:
    return pd.DataFrame(ROWS, columns=HEADER, dtype="str")


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_array_is_read(tmp_path: Path, name: str, indent: int | None) -> None:
    array = json.dumps([dict(zip(HEADER, row, strict=True)) for row in ROWS], indent=indent)

    assert take(tmp_path, name, array).equals(expected())


def test_row_numbers_of_pandas_are_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rows = take(tmp_path, "rows.csv", expected().to_csv())

    assert rows.equals(expected())
    assert "numbers the rows, as pandas writes it" in caplog.text


@pytest.mark.parametrize(("content", "fault"), [(",text,label\n1,a,x\n1,b,y\n", "column 1"), ("id,,label\n1,a,x\n", "column 2")])
def test_other_columns_need_names(tmp_path: Path, content: str, fault: str) -> None:
    with pytest.raises(BadSource, match=f"{fault} has no name"):
        take(tmp_path, "rows.csv", content)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_first_line_of_excel_names_the_delimiter(tmp_path: Path, end: str) -> None:
    content = f"sep=;\n{expected().to_csv(index=False, sep=';')}".replace("\n", end)

    assert take(tmp_path, "rows.csv", content).equals(expected())


def test_lines_are_counted_with_the_line_of_excel(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match=r"row 1 \(line 3\) has 2 cells"):
        take(tmp_path, "rows.csv", "sep=;\nid;text;label\n1;a\n")


def test_file_without_a_header_is_read(tmp_path: Path) -> None:
    columns = {name: f"column_{number}" for number, name in enumerate(HEADER, start=1)}
    rows = take(tmp_path, "rows.csv", expected().to_csv(index=False, header=False), header=False, columns=columns)

    assert rows.equals(expected())


def test_an_instant_has_one_digest_in_every_source(tmp_path: Path) -> None:
    instants = pd.to_datetime(["2026-03-28T22:30:00Z", "2026-07-01T00:00:00Z"])
    digests = set()
    for number, zone in enumerate(["UTC", "Europe/Berlin", "America/Sao_Paulo"]):
        frame = expected().assign(when=instants.tz_convert(zone))
        texts = frame.assign(when=[moment.isoformat() for moment in frame["when"]])
        when = pa.array([moment.to_pydatetime() for moment in frame["when"]], pa.timestamp("us", tz=zone))
        pq.write_table(pa.table({**{name: frame[name].tolist() for name in HEADER}, "when": when}), tmp_path / f"{number}.parquet")
        frame.to_csv(tmp_path / f"{number}.csv", index=False)  # 2026-03-28 23:30:00+01:00
        texts.to_json(tmp_path / f"{number}.jsonl", orient="records", lines=True)
        for suffix in ("parquet", "csv", "jsonl"):
            source = SnapshotParams(source=f"{number}.{suffix}")
            digests.add(take_snapshot(tmp_path, tmp_path / "raw", snapshot=source, required=("text", "label")).digest)

    assert len(digests) == 1
    assert set(read_snapshot(tmp_path / "raw")["when"]) == {"2026-03-28T22:30:00+00:00", "2026-07-01T00:00:00+00:00"}


@pytest.mark.parametrize("text", ["2026-13-01T00:00:00Z", "2026-03-28T23:30:00", "2026-03-28", "at 2026-03-28T23:30:00Z"])
def test_other_texts_stay_unchanged(tmp_path: Path, text: str) -> None:
    assert take(tmp_path, "rows.csv", f"id,text,label\n1,{text},x\n2,b,y\n")["text"][0] == text
