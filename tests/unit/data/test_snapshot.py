"""Snapshots: the same rows give the same bytes, and bad input leaves the existing snapshot untouched."""

import bz2
import csv
import gzip
import json
import lzma
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.artifacts.manifest import SnapshotManifest
from components.artifacts.rows import read_snapshot
from components.core.errors import BadParams, BadSource, NotFound, RetuneError, Unavailable
from components.data.snapshot import SnapshotParams, read_file, take_snapshot
from components.data.snapshot.bucket_sort import Buckets, write_parts

ROWS = [(f"i{number}", f"text number {number}", "ab"[number % 2]) for number in range(20)]
HEADER = ("id", "text", "label")


def write_csv(path: Path, rows: Sequence[tuple[str, ...]] = ROWS, header: tuple[str, ...] = HEADER, **options: Any) -> None:
    with path.open("w", encoding=options.pop("encoding", "utf-8"), newline="") as file:
        csv.writer(file, **options).writerows([header, *rows])


def take(root: Path, source: str = "rows.csv", **settings: object) -> SnapshotManifest:
    params = SnapshotParams.parse({"source": source, **settings}, "snapshot")
    return take_snapshot(root, root / "raw", snapshot=params, required=("text", "label"))


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Content of a snapshot


def test_csv_rows_are_kept_with_a_portable_manifest(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv")

    manifest = take(tmp_path)

    assert manifest == SnapshotManifest.read(tmp_path / "raw")
    assert (manifest.rows, manifest.format, manifest.source, manifest.columns) == (20, "csv", "rows.csv", HEADER)
    assert sorted(read_snapshot(tmp_path / "raw").itertuples(index=False, name=None)) == sorted(ROWS)
    assert sorted(bytes_below(tmp_path / "raw")) == sorted(["manifest.json", *(part.name for part in manifest.parts)])
    assert str(tmp_path) not in (tmp_path / "raw" / "manifest.json").read_text(encoding="utf-8")
    assert not list(tmp_path.glob(".raw*"))


def test_order_of_rows_and_columns_does_not_matter(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv")
    take(tmp_path)
    before = bytes_below(tmp_path / "raw")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "raw").iterdir()}

    write_csv(tmp_path / "rows.csv", [(label, text, key) for key, text, label in reversed(ROWS)], HEADER[::-1])
    take(tmp_path)

    assert bytes_below(tmp_path / "raw") == before
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "raw").iterdir()} == stamps


def test_repeated_row_changes_the_snapshot(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv")
    first = take(tmp_path)
    write_csv(tmp_path / "rows.csv", [*ROWS, ROWS[0]])
    second = take(tmp_path)

    assert first.digest != second.digest
    assert second.rows == 21 == len(read_snapshot(tmp_path / "raw"))


def test_part_boundaries_depend_only_on_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.data.snapshot.bucket_sort._PART", 50)
    monkeypatch.setattr("components.data.snapshot.bucket_sort._BUFFER", 2_000)
    rows = [[f"i{number}", f"text {number}", "a"] for number in range(400)]
    written = []
    for name in ("one", "two"):
        random.shuffle(rows)
        (tmp_path / name).mkdir()
        buckets = Buckets(tmp_path / name / "buckets")
        for row in rows:
            buckets.add(row)
        written.append(write_parts(buckets, HEADER, tmp_path / name))

    assert written[0] == written[1]
    assert len(written[0][1]) == 8
    assert bytes_below(tmp_path / "one") == bytes_below(tmp_path / "two")


def test_every_csv_cell_keeps_its_text(tmp_path: Path) -> None:
    cells = [
        "NA",
        "null",
        "007",
        "1.50",
        "",
        " spaced ",
        'a "quote"',
        "two\nlines",
        "a,b",
        "nan",
        "None",
        "TRUE",
        "日本語",
        "a\u2028b",
        "[1]",
    ]
    write_csv(tmp_path / "rows.csv", [(str(number), cell, "x") for number, cell in enumerate(cells)])

    take(tmp_path)

    frame = read_snapshot(tmp_path / "raw")
    assert dict(zip(frame["id"], frame["text"], strict=True)) == {str(number): cell for number, cell in enumerate(cells)}
    assert frame.notna().all().all()


def test_jsonl_values_become_text_and_keep_nulls(tmp_path: Path) -> None:
    values = [None, 7, True, 2.5, ["a", {"b": 1}], {"k": None}, "007", ""]
    expected = [None, "7", "true", "2.5", '["a", {"b": 1}]', '{"k": null}', "007", ""]
    lines = [json.dumps({"text": f"t{number}", "label": "x", "value": value}) for number, value in enumerate(values)]
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines, '{"text": "t8", "label": "x"}', ""]), encoding="utf-8")

    take(tmp_path, "rows.jsonl")

    frame = read_snapshot(tmp_path / "raw").sort_values("text")
    assert [None if pd.isna(value) else value for value in frame["value"]] == [*expected, None]


def test_parquet_types_become_text(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["a", "b"],
            "label": pa.array(["x", "y"]).dictionary_encode(),
            "number": pa.array([7, None], pa.int64()),
            "flag": [True, False],
            "when": pa.array([0, 1], pa.timestamp("s")),
            "tags": [["p"], []],
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")

    take(tmp_path, "rows.parquet")

    frame = read_snapshot(tmp_path / "raw").sort_values("text").astype(object)
    assert frame.iloc[0].to_dict() == {
        "text": "a", "label": "x", "number": "7", "flag": "true", "when": "1970-01-01T00:00:00", "tags": '["p"]',
    }  # fmt: skip
    assert pd.isna(frame.iloc[1]["number"])


@pytest.mark.parametrize(
    ("name", "settings", "options"),
    [
        ("rows.tsv", {}, {"delimiter": "\t"}),
        ("rows.csv", {"delimiter": ";"}, {"delimiter": ";"}),
        ("rows.csv", {"encoding": "cp1252"}, {"encoding": "cp1252"}),
        ("rows.csv", {"encoding": "utf-16"}, {"encoding": "utf-16"}),
        ("rows.csv", {}, {"encoding": "utf-8-sig"}),
        ("rows.csv", {}, {"lineterminator": "\n\n"}),
        ("ROWS.CSV", {}, {}),
    ],
)
def test_file_encoding_and_delimiter_do_not_change_the_snapshot(
    tmp_path: Path, name: str, settings: dict[str, object], options: dict[str, Any]
) -> None:
    rows = [(key, f"{text} é", label) for key, text, label in ROWS]
    write_csv(tmp_path / "plain.csv", rows)
    expected = take(tmp_path, "plain.csv").digest

    write_csv(tmp_path / name, rows, **options)

    assert take(tmp_path, name, **settings).digest == expected


def test_files_of_a_folder_or_glob_become_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    write_csv(folder / "a.csv", ROWS[:10])
    write_csv(folder / "b.csv", [(label, text, key) for key, text, label in ROWS[10:]], HEADER[::-1])
    (folder / "README.md").write_text("not data", encoding="utf-8")
    write_csv(tmp_path / "rows.csv")

    expected = take(tmp_path, "rows.csv").digest

    assert take(tmp_path, "parts").digest == take(tmp_path, "parts/*.csv").digest == take(tmp_path, "**/[ab].csv").digest == expected


def test_columns_are_renamed_and_conflicts_get_a_prefix(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", [("1", "old", "the text", "x")], ("id", "text", "description", "chapter"))

    manifest = take(tmp_path, columns={"text": "description", "label": "chapter"})

    assert manifest.source_columns == {"id": "id", "text": "description", "label": "chapter", "source_text": "text"}
    assert read_snapshot(tmp_path / "raw").iloc[0].to_dict() == {"id": "1", "text": "the text", "label": "x", "source_text": "old"}


def test_progress_reports_the_row_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.data.snapshot.take._REPORT_EVERY", 8)
    write_csv(tmp_path / "rows.csv")
    reported: list[int] = []

    take_snapshot(tmp_path, tmp_path / "raw", snapshot=SnapshotParams(source="rows.csv"), progress=reported.append)

    assert reported == [8, 16]


def test_source_outside_the_workspace_keeps_its_path(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    write_csv(tmp_path / "rows.csv")

    assert take(tmp_path / "work", "../rows.csv").source == "../rows.csv"
    assert take(tmp_path, str(tmp_path / "rows.csv")).source == "rows.csv"


# Bad input: one clear error, and the existing snapshot stays


def lines(*texts: str) -> bytes:
    return "\n".join(texts).encode() + b"\n"


BAD_FILES: dict[str, tuple[str, bytes, list[str]]] = {
    "empty": ("bad.csv", b"", ["the file is empty"]),
    "header only": ("bad.csv", lines("id,text,label"), ["a header and no rows"]),
    "blank lines": ("bad.csv", b"\n\n\n", ["no header"]),
    "missing column": (
        "bad.csv",
        lines("id,text,lable", "1,a,x"),
        ["the required column 'label' is missing", "did you mean 'lable'?", "snapshot.columns"],
    ),
    "duplicate column": ("bad.csv", lines("id,text,label,text", "1,a,x,b"), ["'text' more than once (columns 2, 4)"]),
    "unnamed column": ("bad.csv", lines(",text,label", "one,a,x"), ["column 1 has no name", "give the column a name"]),
    "delimiter at the end": (
        "bad.csv",
        lines("id,text,label,", "1,a,x,"),
        ["column 4 has no name; if every line ends with a delimiter"],
    ),
    "gzip": ("bad.csv", gzip.compress(b"id,text,label\n1,a,x\n"), ["the file is compressed (gzip); decompress it first"]),
    "bzip2": ("bad.tsv", bz2.compress(b"id,text,label\n1,a,x\n"), ["the file is compressed (bzip2)"]),
    "compress": ("bad.csv", b"\x1f\x9d\x90i\xc8", ["the file is compressed (compress); decompress it first"]),
    "xz": ("bad.jsonl", lzma.compress(b"{}"), ["the file is compressed (xz)"]),
    "zip or Excel": ("bad.csv", b"PK\x03\x04\x14\x00", ["a zip archive or an Excel or LibreOffice workbook"]),
    "Parquet": ("bad.csv", b"PAR1\x15\x04\x15", ["the file is a Parquet file, which does not match its extension"]),
    "SQLite": ("bad.csv", b"SQLite format 3\x00\x10", ["the file is an SQLite database"]),
    "gzip for Parquet": ("bad.parquet", gzip.compress(b"PAR1"), ["the file is compressed (gzip)"]),
    "pointer": ("bad.csv", lines("version https://git-lfs.github.com/spec/v1", "oid sha256:0"), ["a Git LFS pointer", "git lfs pull"]),
    "HTML": ("bad.csv", b"<!DOCTYPE html><html>", ["the file is HTML or XML"]),
    "wrong delimiter": ("bad.csv", lines("id;text;label", "1;a;x"), ["3 columns at ';'", "snapshot.delimiter: ';'"]),
    "tabs in a csv": ("bad.csv", lines('"id"\t"text"\t"label"', '"1"\t"a"\t"x"'), ['snapshot.delimiter: "\\t"']),
    "not UTF-8": (
        "bad.csv",
        lines("id,text,label", "1,a,x") + "2,café,x\n".encode("cp1252"),
        ["row 2 (line 3), byte 25", "0xe9 is not utf-8", "snapshot.encoding"],
    ),
    "not UTF-8 after a line end in quotes": (
        "bad.csv",
        lines("id,text,label", '1,"a', 'b",x') + "2,é,x\n".encode("cp1252"),
        ["row 2 (line 4), byte 26"],
    ),
    "not UTF-8 in the header": ("bad.csv", "id,textß,label\n".encode("cp1252"), ["the header (line 1), byte 7"]),
    "UTF-16": ("bad.csv", "id,text,label\n1,a,x\n".encode("utf-16"), ["byte 0", "set snapshot.encoding: utf-16"]),
    "UTF-16 without a mark": ("bad.csv", "id,text,label\n".encode("utf-16-le"), ["byte 1: a NUL byte", "utf-16"]),
    "NUL bytes": ("bad.csv", lines("id,text,label", "1,a,x", "2,b\0c,x"), ["row 2 (line 3), byte 23: a NUL byte"]),
    "short and long rows": (
        "bad.csv",
        lines("id,text,label", "1,a", '2,"b', 'c",x', "3,d,x,more"),
        ["row 1 (line 2) has 2 cells, the header has 3", "row 3 (line 5) has 4 cells"],
    ),
    "open quote": ("bad.csv", lines("id,text,label", "1,a,x", '2,"b,x', "3,c,x"), ["starts on line 3", "never closed"]),
    "text after a quote": ("bad.csv", lines("id,text,label", '1,"a"b,x'), ["starts on line 2 is not well-formed"]),
    "bad JSON": ("bad.jsonl", lines('{"text": "a", "label": "x"}', '{"text": '), ["line 2 is not JSON"]),
    "JSON array with a text": ("bad.jsonl", lines('[{"text": "a"}, "b"]'), ["item 2 is a JSON str"]),
    "JSON over lines": ("bad.jsonl", lines("{", '"text": "a"', "}"), ["the file is JSON over several lines"]),
    "key without a name": ("bad.jsonl", lines('{"text": "a", "": "b"}'), ["line 1 has a key without a name"]),
    "no objects": ("bad.jsonl", lines('["a", "x"]', "7"), ["line 1 is a JSON list", "line 2 is a JSON int"]),
    "a key twice": ("bad.jsonl", lines('{"text": "a", "text": "b", "label": "x"}'), ["line 1", "'text' appears twice"]),
    "NaN": ("bad.jsonl", lines('{"text": "a", "label": NaN}'), ["line 1", "NaN is not a JSON number"]),
    "infinite number": ("bad.jsonl", lines('{"text": "a", "label": 1e999}'), ["1e999 is out of range"]),
    "half a surrogate": ("bad.jsonl", lines('{"text": "\\ud800", "label": "x"}'), ["line 1 contains half of a surrogate"]),
    "deep JSON": ("bad.jsonl", lines('{"text": ' + "[" * 100_000), ["line 1 is not JSON"]),
    "JSONL that is not UTF-8": ("bad.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', ["row 2, byte 24"]),
    "empty JSONL": ("bad.jsonl", b"\n", ["no rows"]),
    "not Parquet": ("bad.parquet", b"PAR1 no", ["not a Parquet file"]),
    "unknown extension": ("bad.xlsx", b"PK", ["unknown extension '.xlsx'", ".jsonl", "`retune convert FILE"]),
}


@pytest.mark.parametrize("fault", BAD_FILES)
def test_bad_file_is_one_clear_error_and_keeps_the_snapshot(tmp_path: Path, fault: str) -> None:
    write_csv(tmp_path / "rows.csv")
    take(tmp_path)
    before = bytes_below(tmp_path / "raw")
    name, content, expected = BAD_FILES[fault]
    (tmp_path / name).write_bytes(content)

    with pytest.raises(BadSource) as caught:
        take(tmp_path, name)

    for part in [str(tmp_path / name), *expected]:
        assert part in str(caught.value)
    assert bytes_below(tmp_path / "raw") == before
    assert not list(tmp_path.glob(".raw*"))


def test_missing_file_error_suggests_similar_names(tmp_path: Path) -> None:
    write_csv(tmp_path / "tickets.csv")

    with pytest.raises(BadSource, match=r"ticket\.csv: no such file or folder; did you mean 'tickets.csv'\?"):
        take(tmp_path, "ticket.csv")
    with pytest.raises(BadSource, match=r"the folder .*nowhere does not exist either"):
        take(tmp_path, "nowhere/rows.csv")
    with pytest.raises(BadParams, match="starts with https://; expected a file"):
        take(tmp_path, "https://example.org/rows.csv")


def test_folder_without_data_or_with_two_formats_is_refused(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    with pytest.raises(BadSource, match=r"contains no \.csv, .*parts/\*\*/\*\.csv"):
        take(tmp_path, "parts")
    write_csv(tmp_path / "parts" / "a.csv")
    (tmp_path / "parts" / "b.jsonl").write_bytes(lines('{"text": "a", "label": "x"}'))

    with pytest.raises(BadSource, match=r"a\.csv \(csv\), b\.jsonl \(jsonl\); choose with a glob"):
        take(tmp_path, "parts")


def test_files_with_different_columns_are_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv")
    write_csv(tmp_path / "b.csv", [("1", "t", "x")], ("id", "text", "level"))

    with pytest.raises(BadSource, match=r"b\.csv: expected the same columns as in a\.csv, but it lacks 'label' and also has 'level'"):
        take(tmp_path, "[ab].csv")


def test_all_missing_columns_are_reported_together(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", [("1", "t", "x")], ("id", "description", "chapter"))

    with pytest.raises(BadSource) as caught:
        take(tmp_path, columns={"text": "descriptoin"})

    assert "column 'descriptoin', mapped to text in snapshot.columns, is missing; did you mean 'description'?" in str(caught.value)
    assert "the required column 'label' is missing; known: chapter, description, id" in str(caught.value)


def test_faults_are_collected_up_to_twenty(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_bytes(lines("id,text,label", *["1"] * 50))

    with pytest.raises(BadSource) as caught:
        take(tmp_path, "bad.csv")

    assert str(caught.value).count("has 1 cells") == 20
    assert str(caught.value).endswith("reading stopped after 20 faults")


def test_binary_and_repeated_parquet_columns_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [b"\x00"], "label": ["x"]}), tmp_path / "binary.parquet")
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]), tmp_path / "twice.parquet")

    with pytest.raises(BadSource, match="column 'text' cannot be read as text: binary data"):
        take(tmp_path, "binary.parquet")
    with pytest.raises(BadSource, match="'text' appears more than once"):
        take(tmp_path, "twice.parquet")


def test_header_may_start_like_another_format(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", ROWS, ("ORC", "text", "label"))

    assert take(tmp_path).columns == ("text", "label", "ORC")


def test_parquet_column_without_a_name_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "": ["b"]}), tmp_path / "bad.parquet")

    with pytest.raises(BadSource, match="column 2 has no name"):
        take(tmp_path, "bad.parquet")


def test_pipe_and_socket_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(BadSource, match=r"pipe\.csv: a named pipe \(FIFO\), expected a file"):
        take(tmp_path, "pipe.csv")
    with pytest.raises(BadSource, match=r"pipe\.csv: a named pipe \(FIFO\); expected a file"):
        read_file(tmp_path / "pipe.csv", SnapshotParams(source="-"))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(tmp_path / "s.csv"))
        with pytest.raises(BadSource, match=r"s\.csv: a socket, expected a file"):
            take(tmp_path, "s.csv")


def test_cell_length_is_limited_in_every_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("take", "delimited"):
        monkeypatch.setattr(f"components.data.snapshot.{module}.LONGEST_CELL", 100)
    rows = [("1", "a" * 101, "x")]
    write_csv(tmp_path / "long.csv", rows)
    pq.write_table(pa.table(dict(zip(HEADER, map(list, zip(*rows, strict=True)), strict=True))), tmp_path / "long.parquet")
    (tmp_path / "long.jsonl").write_text(json.dumps(dict(zip(HEADER, rows[0], strict=True))), encoding="utf-8")

    for name in ("long.csv", "long.parquet", "long.jsonl"):
        with pytest.raises(BadSource, match=r"cell.* has more than 100 characters"):
            take(tmp_path, name)


def test_messages_with_many_or_long_names_are_short(tmp_path: Path) -> None:
    write_csv(tmp_path / "wide.csv", [], tuple(f"column number {number}" for number in range(20_000)))
    write_csv(tmp_path / "long.csv", [], ("text", "a" * 1_000_000, "a" * 1_000_000))
    write_csv(tmp_path / "same.csv", [], ("text",) * 3_000)

    for name in ("wide.csv", "long.csv", "same.csv"):
        with pytest.raises(BadSource) as caught:
            take(tmp_path, name)
        assert len(str(caught.value)) < 4_000


def test_parquet_that_expands_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.data.snapshot.take._SMALL", 1 << 20)
    pq.write_table(pa.table({"text": ["a" * 1000] * 20_000, "label": ["x"] * 20_000}), tmp_path / "bomb.parquet")

    with pytest.raises(BadSource, match=r"bomb\.parquet: .* bytes expand to more than .* MiB of rows.*snapshot\.max_growth"):
        take(tmp_path, "bomb.parquet")
    assert take(tmp_path, "bomb.parquet", max_growth=100_000).rows == 20_000


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_full_disk_is_detected_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_csv(tmp_path / "rows.csv")
    pq.write_table(pa.table({"text": ["a"] * 50, "label": ["x"] * 50}), tmp_path / "rows.parquet")
    monkeypatch.setattr("components.data.snapshot.take.shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(9, 9, 9))

    with pytest.raises(Unavailable, match=rf"the rows of {name} need at least .*, but only 0 MiB are free"):
        take(tmp_path, name)


def test_empty_source_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv")

    for empty in ("", "  "):
        with pytest.raises(BadParams, match="found an empty text"):
            SnapshotParams(source="rows.csv").at(empty)


def test_very_long_cell_is_read(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", [*ROWS, ("long", "a" * 1_000_000, "x")])

    take(tmp_path)

    assert read_snapshot(tmp_path / "raw")["text"].str.len().max() == 1_000_000


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"encoding": "utf-9"}, "snapshot.encoding: expected the name of a text encoding"),
        ({"encoding": "base64"}, "snapshot.encoding: expected the name of a text encoding"),
        ({"delimiter": '"'}, "snapshot.delimiter: expected a character"),
        ({"delimiter": "||"}, "snapshot.delimiter"),
        ({"columns": {"text": "a", "label": "a"}}, "text and label both use the source column 'a'"),
        ({"sourec": "x"}, "snapshot.sourec is not a setting; did you mean 'source'?"),
        ({"columns": ["text"]}, "snapshot.columns"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(BadParams) as caught:
        SnapshotParams.parse({"source": "rows.csv", **settings}, "snapshot")

    assert expected in str(caught.value)


# System errors


FULL = """
import resource, sys
from pathlib import Path
from components.core.errors import Unavailable
from components.data.snapshot import SnapshotParams, take_snapshot
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
try:
    take_snapshot(Path(sys.argv[1]), Path(sys.argv[1], "raw"), snapshot=SnapshotParams(source=sys.argv[2]))
except Unavailable as error:
    sys.exit(f"Unavailable: {error}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("texts", ["random", "same"], ids=["in the parts", "in the buckets"])
def test_full_disk_keeps_the_snapshot(tmp_path: Path, texts: str) -> None:
    write_csv(tmp_path / "rows.csv")
    take(tmp_path)
    before = bytes_below(tmp_path / "raw")
    rng = random.Random(1)
    rows = [("1", "b" * 200, "x")] * 1000 if texts == "same" else [(str(n), rng.randbytes(100).hex(), "x") for n in range(2000)]
    write_csv(tmp_path / "big.csv", rows)

    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path), "big.csv"], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert f"Unavailable: no room to write {tmp_path / 'raw'}" in done.stderr
    assert "its previous content is unchanged" in done.stderr
    assert bytes_below(tmp_path / "raw") == before
    assert not list(tmp_path.glob(".raw*"))


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv")
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(RetuneError, match=r"file/raw cannot be written"):
        take_snapshot(tmp_path, tmp_path / "file" / "raw", snapshot=SnapshotParams(source="rows.csv"))


def killed_between_the_renames(root: Path) -> None:
    (root / "raw").rename(root / ".raw.earlier")


def killed_while_writing(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    (root / f".raw.{done.stdout.strip()}.partial").mkdir()


@pytest.mark.parametrize("kill", [killed_between_the_renames, killed_while_writing])
def test_next_run_repairs_a_killed_one(tmp_path: Path, kill: Callable[[Path], None]) -> None:
    write_csv(tmp_path / "rows.csv")
    first = take(tmp_path)
    kill(tmp_path)

    assert take(tmp_path) == first
    assert not list(tmp_path.glob(".raw*"))


def test_damaged_part_is_named_and_replaced_by_a_new_snapshot(tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv")
    part = tmp_path / "raw" / take(tmp_path).parts[0].name
    content = part.read_bytes()
    part.write_bytes(content[:-1] + b"x")
    with pytest.raises(NotFound, match=rf"{part.name} is corrupt.*dvc checkout"):
        read_snapshot(tmp_path / "raw")
    part.unlink()
    with pytest.raises(NotFound, match=rf"{part.name} is missing.*dvc checkout"):
        read_snapshot(tmp_path / "raw")

    take(tmp_path)

    assert part.read_bytes() == content


# VmHWM is the peak of this program; ru_maxrss would start at the peak of pytest, which forks it.
LARGE = """
import resource, sys
from pathlib import Path
from components.data.snapshot import SnapshotParams, take_snapshot
take_snapshot(Path(sys.argv[1]), Path(sys.argv[1], "raw"), snapshot=SnapshotParams(source="rows.csv"))
status = Path("/proc/self/status")
peak = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")] if status.exists() else []
print(int(peak[0] if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) // 1024)
"""


@pytest.mark.exhaustive
@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    rows = [(f"i{number}", f"the text of row {number} " * 20, f"c{number % 9}") for number in range(200_000)]
    write_csv(tmp_path / "rows.csv", rows)
    assert (tmp_path / "rows.csv").stat().st_size > 90e6

    done = subprocess.run([sys.executable, "-c", LARGE, str(tmp_path)], capture_output=True, text=True, check=True)

    assert SnapshotManifest.read(tmp_path / "raw").rows == 200_000
    assert int(done.stdout) < 400  # MiB: 64 for the buckets, the rest is Python, pandas and Arrow
