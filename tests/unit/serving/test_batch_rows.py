"""Rows of a scoring, without a version: reading, checking, splitting, and resuming."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.errors import BadData, BadInput, BadParams, BadSource
from components.data.snapshot import SnapshotParams
from components.model import tasks
from components.serving.batch.files import Files
from components.serving.batch.records import RowCounts
from components.serving.batch.rows import ANSWERS, add_answers, answer_columns, check_added_columns, check_rows, input_columns, split_rows
from components.serving.batch.score import ScoringSettings, check_same_plan, make_manifest
from flows.batch_scoring.scoring import expand, read_columns
from tests.support.scored import PLAN

TEXT = {"text": "text"}
SETTINGS = SnapshotParams(source="unused")
CLASSES = tasks.load("text_classification")


def files(*paths: Path) -> Files:
    return Files({path: path.name for path in paths}, SETTINGS, "the rows")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_keeps_types_across_files(tmp_path: Path) -> None:
    first = parquet(tmp_path / "a.parquet", n=pa.array([1, 2], pa.int32()), text=pa.array(["a", "b"]).dictionary_encode(), none=pa.nulls(2))
    second = parquet(tmp_path / "b.parquet", none=["x"], text=["c"], n=pa.array([3], pa.int32()))
    source = files(first, second)
    pieces = list(source.pieces(TEXT))

    assert source.schema == pa.schema([("n", pa.int32()), ("text", pa.string()), ("none", pa.string())])
    assert [(piece.source, piece.first, piece.cells["text"]) for piece in pieces] == [("a.parquet", 1, ["a", "b"]), ("b.parquet", 1, ["c"])]
    assert pa.concat_tables([piece.table for piece in pieces]).column("none").to_pylist() == [None, None, "x"]


def test_cells_are_text_and_empty_csv_cells_are_missing(tmp_path: Path) -> None:
    (csv,) = files(write(tmp_path / "a.csv", 'id,text\n007,NA\n,"a\n""b"""\n8,\n')).pieces(TEXT)
    (jsonl,) = files(write(tmp_path / "a.jsonl", '{"text": "", "n": 7}\n{"text": null}\n{"text": ["a"], "n": {"b": 1}}\n')).pieces(TEXT)

    assert csv.table.to_pydict() == {"id": ["007", "", "8"], "text": ["NA", 'a\n"b"', ""]}
    assert csv.cells["text"] == ["NA", 'a\n"b"', None]
    assert jsonl.table.to_pydict() == {"text": ["", None, '["a"]'], "n": ["7", None, '{"b": 1}']}
    assert jsonl.cells["text"] == ["", None, ["a"]]


def test_files_need_the_same_columns_and_types(tmp_path: Path) -> None:
    first = parquet(tmp_path / "a.parquet", text=["a"], n=[1])
    with pytest.raises(BadSource, match=r"b.parquet: expected the same columns as in a.parquet, found differences in 'n', 'm'"):
        files(first, parquet(tmp_path / "b.parquet", text=["a"], m=[1]))
    with pytest.raises(BadSource, match="the rows: a column has different types in different files"):
        files(first, parquet(tmp_path / "c.parquet", text=["a"], n=["x"]))


def test_digest_depends_on_content_and_order(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.csv", "text\na\n"), write(tmp_path / "b.csv", "text\nb\n")
    before = files(first, second).digest()
    assert files(first, second).digest() == before != files(second, first).digest()
    write(second, "text\nc\n")
    assert files(first, second).digest() != before


def test_input_column_is_explicit_default_or_own_name(tmp_path: Path) -> None:
    source = files(parquet(tmp_path / "a.parquet", text=["a"], body=["b"], title=["c"]))
    assert input_columns(CLASSES, source, {"text": "title"}, {"text": "body"}) == {"text": "title"}
    assert input_columns(CLASSES, source, {}, {"text": "body", "label": "topic"}) == {"text": "body"}
    assert input_columns(CLASSES, source, {}, {"text": "gone"}) == {"text": "text"}
    with pytest.raises(BadInput, match=r"the rows: expected the column 'titel', found 'text', 'body', 'title'; did you mean 'title'\?"):
        input_columns(CLASSES, source, {"text": "titel"}, {})
    with pytest.raises(BadInput, match="the version has the input text, not 'label'"):
        input_columns(CLASSES, source, {"label": "title"}, {})


def test_existing_columns_are_never_overwritten(tmp_path: Path) -> None:
    source = files(parquet(tmp_path / "a.parquet", text=["a"], label=["b"], row_number=[1]))
    with pytest.raises(BadInput, match=r"the rows already has the column 'label'.*--prefix"):
        check_added_columns(source, answer_columns(CLASSES, "").values())
    with pytest.raises(BadInput, match="the rows already has the column 'row_number', which would be added; rename it"):
        check_added_columns(source, ["row_number"])
    check_added_columns(source, answer_columns(CLASSES, "scored_").values())
    assert set(answer_columns(CLASSES, "scored_").values()) == {"scored_label", "scored_probability", "scored_probabilities"}
    assert tuple(answer_columns(tasks.load("sequence_to_sequence"), "")) == ("answer",)


BAD = '{"text": "a"}\n{"text": null}\n{"n": 1}\n{"text": 7}\n{"text": true}\n'


def test_bad_rows_are_listed_by_file_and_row(tmp_path: Path) -> None:
    source = files(write(tmp_path / "a.jsonl", BAD))
    with pytest.raises(BadData) as error:
        check_rows(source, TEXT, "error")
    assert str(error.value).splitlines() == [
        "4 of 5 rows cannot be scored; --on-bad-row quarantine sets them aside",
        "a.jsonl: row 2: 'text' is missing",
        "a.jsonl: row 3: 'text' is missing",
        "a.jsonl: row 4: 'text' is a number, expected text",
        "a.jsonl: row 5: 'text' is true or false, expected text",
    ]
    assert check_rows(source, TEXT, "quarantine") == 5


def test_input_without_good_rows_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"30 of 30 rows cannot be scored\n(.*\n){20}and 10 more"):
        check_rows(files(parquet(tmp_path / "a.parquet", text=pa.nulls(30, pa.string()))), TEXT, "quarantine")
    with pytest.raises(BadSource, match="the rows has no rows; expected at least one"):
        check_rows(files(write(tmp_path / "a.csv", "text\n")), TEXT, "error")
    with pytest.raises(BadSource, match=r"row 2 \(line 3\) has 2 cells, the header has 1"):
        check_rows(files(write(tmp_path / "b.csv", "text\na\nb,c\n")), TEXT, "quarantine")


@pytest.mark.parametrize("skip", [0, 3, 6])
def test_parts_are_the_same_after_any_skip(tmp_path: Path, skip: int) -> None:
    rows = [{"id": str(number), "text": None if number in (2, 7) else f"text {number}"} for number in range(8)]
    paths = [
        write(tmp_path / f"{start}.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows[start:stop])) for start, stop in [(0, 5), (5, 8)]
    ]
    parts = list(split_rows(files(*paths).pieces(TEXT), 3, skip))
    expected = list(split_rows(files(*paths).pieces(TEXT), 3, 0))[skip // 3 :]

    assert [part.good.equals(other.good) and part.bad.equals(other.bad) for part, other in zip(parts, expected, strict=True)] == [
        True
    ] * len(expected)
    assert [part.rows for part in expected] == [3, 3, 2][skip // 3 :]
    assert [number for part in parts for number in part.numbers] == [n for n in (1, 2, 4, 5, 6, 7) if n > skip]
    assert [text for part in parts for text in part.texts["text"]] == [f"text {n}" for n in (0, 1, 3, 4, 5, 6) if n >= skip]
    bad = [row for part in parts for row in part.bad.to_pylist()]
    reason = {"quarantine_reason": "'text' is missing", "quarantine_source": "5.jsonl", "quarantine_row": 3}
    assert bad[-1] == {"row_number": 8, **reason, "id": "7", "text": None}
    assert len(bad) == (2 if skip < 3 else 1)


def test_answers_are_added_to_the_rows() -> None:
    answers = {"label": ["a"], "probability": [0.75], "probabilities": [{"a": 0.75, "b": 0.25}]}
    table = add_answers(pa.table({"text": ["x"]}), answers, answer_columns(CLASSES, "p_"))

    assert table.schema.names == ["text", "p_label", "p_probability", "p_probabilities"]
    assert table.to_pylist() == [{"text": "x", "p_label": "a", "p_probability": 0.75, "p_probabilities": [("a", 0.75), ("b", 0.25)]}]
    empty = add_answers(table.slice(0, 0).select(["text"]), {}, answer_columns(CLASSES, "p_"))
    assert empty.schema == table.schema
    assert set(ANSWERS) == {"label", "probability", "probabilities", "answer"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_digest": "e" * 64}, "in.csv differs from the input that out was started with"),
        ({"rows_per_part": 3, "prefix": "p_"}, "out was started with rows_per_part 2, prefix ''"),
        ({"on_bad_row": "error"}, "out was started with on_bad_row 'quarantine'"),
        ({"inputs": {"text": "body"}}, "out was started with inputs {'text': 'text'}"),
    ],
)
def test_resuming_requires_the_same_plan(changes: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput) as error:
        check_same_plan("out", PLAN.model_copy(update=changes), PLAN)

    assert str(error.value).startswith(message)
    assert "--replace" in str(error.value)
    assert check_same_plan("out", PLAN.model_copy(update={"asked": "tickets/1", "rows": 0, "input": "./in.csv"}), PLAN) == PLAN


def test_manifest_counts_every_row_of_the_input() -> None:
    manifest = make_manifest(PLAN, RowCounts(5, 3))
    assert (manifest.rows, manifest.scored, manifest.quarantined) == (5, 3, 2)
    assert ScoringSettings() == ScoringSettings(10_000, "error", "", {}, {})


def test_templates_are_filled_in_with_utc_times() -> None:
    moment = datetime.fromisoformat("2026-11-28T23:30:05-02:00")
    assert expand("out/{date}/{time}-{date}", moment) == "out/2026-11-29/01-30-05-2026-11-29"
    assert expand("sql://shop/scored", datetime.now(UTC)) == "sql://shop/scored"
    with pytest.raises(BadParams, match=r"out/\{dat\}: unknown placeholder \{dat\}; did you mean 'date'\?"):
        expand("out/{dat}", moment)


def test_columns_are_parsed_from_pairs() -> None:
    assert read_columns(["text=a=b", "text_pair=c"]) == {"text": "a=b", "text_pair": "c"}
    for pairs in (["text"], ["=a"], ["text="], ["text=a", "text=b"]):
        with pytest.raises(BadParams, match="expected INPUT=COLUMN, each input once"):
            read_columns(pairs)
