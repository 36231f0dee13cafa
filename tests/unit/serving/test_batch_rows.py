"""Rows on their way to a version and back, without one: reading, telling good from bad, and what may go on."""

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
from components.serving.batch.rows import ANSWERS, add_answers, answer_columns, check_added_columns, check_rows, input_columns, shares
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


def test_parquet_keeps_its_types_over_files_whose_columns_come_in_any_order(tmp_path: Path) -> None:
    first = parquet(tmp_path / "a.parquet", n=pa.array([1, 2], pa.int32()), text=pa.array(["a", "b"]).dictionary_encode(), none=pa.nulls(2))
    second = parquet(tmp_path / "b.parquet", none=["x"], text=["c"], n=pa.array([3], pa.int32()))
    source = files(first, second)
    pieces = list(source.pieces(TEXT))

    assert source.schema == pa.schema([("n", pa.int32()), ("text", pa.string()), ("none", pa.string())])
    assert [(piece.called, piece.first, piece.cells["text"]) for piece in pieces] == [("a.parquet", 1, ["a", "b"]), ("b.parquet", 1, ["c"])]
    assert pa.concat_tables([piece.table for piece in pieces]).column("none").to_pylist() == [None, None, "x"]


def test_a_cell_is_text_as_it_stands_in_a_file_and_an_empty_one_of_csv_is_none(tmp_path: Path) -> None:
    (csv,) = files(write(tmp_path / "a.csv", 'id,text\n007,NA\n,"a\n""b"""\n8,\n')).pieces(TEXT)
    (jsonl,) = files(write(tmp_path / "a.jsonl", '{"text": "", "n": 7}\n{"text": null}\n{"text": ["a"], "n": {"b": 1}}\n')).pieces(TEXT)

    assert csv.table.to_pydict() == {"id": ["007", "", "8"], "text": ["NA", 'a\n"b"', ""]}
    assert csv.cells["text"] == ["NA", 'a\n"b"', None]
    assert jsonl.table.to_pydict() == {"text": ["", None, '["a"]'], "n": ["7", None, '{"b": 1}']}
    assert jsonl.cells["text"] == ["", None, ["a"]]


def test_files_of_one_input_have_the_same_columns_and_types(tmp_path: Path) -> None:
    first = parquet(tmp_path / "a.parquet", text=["a"], n=[1])
    with pytest.raises(BadSource, match=r"b.parquet: expected the same columns as in a.parquet, found that they differ in 'n', 'm'"):
        files(first, parquet(tmp_path / "b.parquet", text=["a"], m=[1]))
    with pytest.raises(BadSource, match="the rows: a column is of different types in different files"):
        files(first, parquet(tmp_path / "c.parquet", text=["a"], n=["x"]))


def test_the_digest_is_that_of_the_bytes_in_their_order(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.csv", "text\na\n"), write(tmp_path / "b.csv", "text\nb\n")
    before = files(first, second).digest()
    assert files(first, second).digest() == before != files(second, first).digest()
    write(second, "text\nc\n")
    assert files(first, second).digest() != before


def test_an_input_is_found_by_what_is_asked_then_by_what_is_usual_then_by_its_name(tmp_path: Path) -> None:
    source = files(parquet(tmp_path / "a.parquet", text=["a"], body=["b"], title=["c"]))
    assert input_columns(CLASSES, source, {"text": "title"}, {"text": "body"}) == {"text": "title"}
    assert input_columns(CLASSES, source, {}, {"text": "body", "label": "topic"}) == {"text": "body"}
    assert input_columns(CLASSES, source, {}, {"text": "gone"}) == {"text": "text"}
    with pytest.raises(BadInput, match=r"the rows: expected the column 'titel', found 'text', 'body', 'title'; did you mean 'title'\?"):
        input_columns(CLASSES, source, {"text": "titel"}, {})
    with pytest.raises(BadInput, match="asked with text, not with 'label'"):
        input_columns(CLASSES, source, {"label": "title"}, {})


def test_a_column_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    source = files(parquet(tmp_path / "a.parquet", text=["a"], label=["b"], row_number=[1]))
    with pytest.raises(BadInput, match=r"the rows has a column 'label' already.*--prefix"):
        check_added_columns(source, answer_columns(CLASSES, "").values())
    with pytest.raises(BadInput, match="the rows has a column 'row_number' already, which would be added; rename it"):
        check_added_columns(source, ["row_number"])
    check_added_columns(source, answer_columns(CLASSES, "scored_").values())
    assert set(answer_columns(CLASSES, "scored_").values()) == {"scored_label", "scored_probability", "scored_probabilities"}
    assert tuple(answer_columns(tasks.load("sequence_to_sequence"), "")) == ("answer",)


BAD = '{"text": "a"}\n{"text": null}\n{"n": 1}\n{"text": 7}\n{"text": true}\n'


def test_bad_rows_are_named_by_file_and_row_before_anything_is_scored(tmp_path: Path) -> None:
    source = files(write(tmp_path / "a.jsonl", BAD))
    with pytest.raises(BadData) as error:
        check_rows(source, TEXT, "error")
    assert str(error.value).splitlines() == [
        "4 of 5 rows cannot be scored; --on-bad-row quarantine puts them aside",
        "a.jsonl: row 2: 'text' is missing",
        "a.jsonl: row 3: 'text' is missing",
        "a.jsonl: row 4: 'text' is a number, expected text",
        "a.jsonl: row 5: 'text' is true or false, expected text",
    ]
    assert check_rows(source, TEXT, "quarantine") == 5


def test_an_input_of_nothing_but_bad_rows_or_of_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"30 of 30 rows cannot be scored\n(.*\n){20}and 10 more"):
        check_rows(files(parquet(tmp_path / "a.parquet", text=pa.nulls(30, pa.string()))), TEXT, "quarantine")
    with pytest.raises(BadSource, match="the rows has no rows; expected at least one"):
        check_rows(files(write(tmp_path / "a.csv", "text\n")), TEXT, "error")
    with pytest.raises(BadSource, match=r"row 2 \(line 3\) has 2 cells, the header has 1"):
        check_rows(files(write(tmp_path / "b.csv", "text\na\nb,c\n")), TEXT, "quarantine")


@pytest.mark.parametrize("skip", [0, 3, 6])
def test_shares_are_the_same_wherever_reading_begins(tmp_path: Path, skip: int) -> None:
    rows = [{"id": str(number), "text": None if number in (2, 7) else f"text {number}"} for number in range(8)]
    cut = [
        write(tmp_path / f"{start}.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows[start:stop])) for start, stop in [(0, 5), (5, 8)]
    ]
    found = list(shares(files(*cut).pieces(TEXT), 3, skip))
    whole = list(shares(files(*cut).pieces(TEXT), 3, 0))[skip // 3 :]

    assert [share.good.equals(other.good) and share.bad.equals(other.bad) for share, other in zip(found, whole, strict=True)] == [
        True
    ] * len(whole)
    assert [share.rows for share in whole] == [3, 3, 2][skip // 3 :]
    assert [number for share in found for number in share.numbers] == [n for n in (1, 2, 4, 5, 6, 7) if n > skip]
    assert [text for share in found for text in share.texts["text"]] == [f"text {n}" for n in (0, 1, 3, 4, 5, 6) if n >= skip]
    bad = [row for share in found for row in share.bad.to_pylist()]
    why = {"quarantine_reason": "'text' is missing", "quarantine_source": "5.jsonl", "quarantine_row": 3}
    assert bad[-1] == {"row_number": 8, **why, "id": "7", "text": None}
    assert len(bad) == (2 if skip < 3 else 1)


def test_answers_stand_beside_the_rows() -> None:
    found = {"label": ["a"], "probability": [0.75], "probabilities": [{"a": 0.75, "b": 0.25}]}
    table = add_answers(pa.table({"text": ["x"]}), found, answer_columns(CLASSES, "p_"))

    assert table.schema.names == ["text", "p_label", "p_probability", "p_probabilities"]
    assert table.to_pylist() == [{"text": "x", "p_label": "a", "p_probability": 0.75, "p_probabilities": [("a", 0.75), ("b", 0.25)]}]
    none = add_answers(table.slice(0, 0).select(["text"]), {}, answer_columns(CLASSES, "p_"))
    assert none.schema == table.schema
    assert set(ANSWERS) == {"label", "probability", "probabilities", "answer"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input_digest": "e" * 64}, "in.csv is not what out was begun with"),
        ({"rows_per_part": 3, "prefix": "p_"}, "out was begun with rows_per_part 2, prefix ''"),
        ({"on_bad_row": "error"}, "out was begun with on_bad_row 'quarantine'"),
        ({"inputs": {"text": "body"}}, "out was begun with inputs {'text': 'text'}"),
    ],
)
def test_what_was_begun_goes_on_with_the_same_only(changes: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput) as error:
        check_same_plan("out", PLAN.model_copy(update=changes), PLAN)

    assert str(error.value).startswith(said)
    assert "--replace" in str(error.value)
    assert check_same_plan("out", PLAN.model_copy(update={"asked": "tickets/1", "rows": 0, "input": "./in.csv"}), PLAN) == PLAN


def test_the_manifest_counts_every_row_of_the_input() -> None:
    manifest = make_manifest(PLAN, RowCounts(5, 3))
    assert (manifest.rows, manifest.scored, manifest.quarantined) == (5, 3, 2)
    assert ScoringSettings() == ScoringSettings(10_000, "error", "", {}, {})


def test_templates_are_filled_in_by_the_moment_in_utc() -> None:
    moment = datetime.fromisoformat("2026-11-28T23:30:05-02:00")
    assert expand("out/{date}/{time}-{date}", moment) == "out/2026-11-29/01-30-05-2026-11-29"
    assert expand("sql://shop/scored", datetime.now(UTC)) == "sql://shop/scored"
    with pytest.raises(BadParams, match=r"out/\{dat\}: \{dat\} is nothing that is filled in; did you mean 'date'\?"):
        expand("out/{dat}", moment)


def test_columns_are_given_as_pairs() -> None:
    assert read_columns(["text=a=b", "text_pair=c"]) == {"text": "a=b", "text_pair": "c"}
    for pairs in (["text"], ["=a"], ["text="], ["text=a", "text=b"]):
        with pytest.raises(BadParams, match="expected INPUT=COLUMN, each input once"):
            read_columns(pairs)
