"""Quotes that are text: joined rows are detected, and a setting reads the quotes as text."""

from pathlib import Path

import pandas as pd
import pytest

from components.artifacts.rows import read_snapshot
from components.core.errors import BadData, BadSource
from components.data.snapshot import SnapshotParams, read_file, take_snapshot, write_file
from flows.project.guessing import guess_columns
from flows.project.init_params import write_params
from flows.project.params import read_params

ROWS = [[str(number), f"a text of number {number}", "abc"[number % 3]] for number in range(240)]


def write(path: Path, rows: list[list[str]], delimiter: str = "\t") -> Path:
    path.write_text("".join(delimiter.join(row) + "\n" for row in [["id", "text", "label"], *rows]), encoding="utf-8")
    return path


def with_joined_rows(first: int, last: int) -> list[list[str]]:
    """Return rows with a quote that opens in row `first` and closes in row `last`."""
    rows = [list(row) for row in ROWS]
    rows[first][1] = '"' + rows[first][1]
    rows[last][1] += ' "'
    return rows


def take(root: Path, source: str, **settings: object) -> pd.DataFrame:
    params = SnapshotParams.parse({"source": source, **settings}, "snapshot")
    take_snapshot(root, root / "raw", snapshot=params)
    return read_snapshot(root / "raw")


@pytest.mark.parametrize(("name", "delimiter"), [("rows.tsv", "\t"), ("rows.csv", ","), ("rows.csv", ";"), ("rows.csv", "|")])
@pytest.mark.parametrize(("first", "last"), [(5, 25), (5, 6), (0, 239)])
def test_joined_rows_are_refused_with_their_lines(tmp_path: Path, name: str, delimiter: str, first: int, last: int) -> None:
    write(tmp_path / name, with_joined_rows(first, last), delimiter)
    settings = {} if delimiter in "\t," else {"delimiter": delimiter}

    with pytest.raises(BadSource) as caught:
        take(tmp_path, name, **settings)

    assert f"lines {first + 2} to {last + 2} are one row" in str(caught.value)
    assert f"240 lines gave {240 - last + first} rows; if quotes are text in this file, set snapshot.quoting: none" in str(caught.value)
    rows = take(tmp_path, name, quoting="none", **settings)
    assert len(rows) == 240
    assert '"a text of number 5'.replace("5", str(first)) in set(rows["text"])
    assert len(take(tmp_path, name, quoting="double", **settings)) == 240 - last + first


def test_joined_rows_among_quoted_ones_are_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = with_joined_rows(5, 6)
    rows[9][1] = '"a text, with its delimiter"'
    write(tmp_path / "rows.csv", rows, ",")

    assert len(take(tmp_path, "rows.csv")) == 239
    assert "rows.csv: lines 7 to 8 are one row" in caplog.text
    assert "snapshot.quoting: none" in caplog.text


def test_joined_rows_of_one_column_are_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [row[1] for row in with_joined_rows(5, 25)]
    (tmp_path / "rows.csv").write_text("text\n" + "\n".join(lines) + "\n", encoding="utf-8")

    assert len(take(tmp_path, "rows.csv")) == 220
    assert "lines 7 to 27 are one row" in caplog.text
    assert "240 lines gave 220 rows; if quotes are text in this file, set snapshot.quoting: none" in caplog.text


def test_joined_rows_with_a_malformed_one_are_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = with_joined_rows(5, 25)
    rows[9][1] += ", with a delimiter"
    write(tmp_path / "rows.csv", rows, ",")

    assert len(take(tmp_path, "rows.csv")) == 220
    assert "lines 7 to 27 are one row" in caplog.text


def test_texts_of_several_lines_are_accepted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = pd.DataFrame(ROWS, columns=["id", "text", "label"])
    frame["text"] = [f"Hello, dear {text},\n\nit does not work, again.\nYours,\nAda" for text in frame["text"]]
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_csv(tmp_path / "rows.tsv", index=False, sep="\t")

    assert sorted(take(tmp_path, "rows.csv")["text"]) == sorted(take(tmp_path, "rows.tsv")["text"]) == sorted(frame["text"])
    assert "one row" not in caplog.text


@pytest.mark.parametrize(
    ("line", "setting"),
    [('7\t"Hello" she said\tb', "none"), ('7\t"never closed\tb', "none"), ('7\t"a \\"quoted\\" word"\tb', "backslash")],
)
def test_quoting_errors_name_the_setting(tmp_path: Path, line: str, setting: str) -> None:
    write(tmp_path / "rows.tsv", [*ROWS[:7], line.split("\t")])

    with pytest.raises(BadSource, match=rf"line 9 is not well-formed.*snapshot\.quoting: {setting}"):
        take(tmp_path, "rows.tsv")
    assert len(take(tmp_path, "rows.tsv", quoting=setting)) == 8


def test_row_of_wrong_width_suggests_quoting(tmp_path: Path) -> None:
    write(tmp_path / "rows.tsv", [*ROWS[:7], ['"7', 'two"', "b"]])

    with pytest.raises(BadSource, match=r"row 8 \(line 9\) has 2 cells, the header has 3; if quotes are text"):
        take(tmp_path, "rows.tsv")


@pytest.mark.parametrize("quoting", [None, "double", "backslash", "none"])
def test_written_rows_are_read_back(tmp_path: Path, quoting: str | None) -> None:
    texts = ['a "quote', "a, b\nc", "back\\slash", '"'] if quoting != "none" else ['"a "quote', "back\\slash", '"', "a b"]
    rows = pd.DataFrame({"text": texts, "label": ["x"] * 4}, dtype="str")
    settings = SnapshotParams.parse({"source": "-", "quoting": quoting}, "snapshot")

    write_file(rows, tmp_path / "rows.csv", settings)

    pd.testing.assert_frame_equal(read_file(tmp_path / "rows.csv", settings), rows)


def test_file_with_quoted_cells_is_accepted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("rows.csv", "rows.tsv"):
        delimiter = "," if name.endswith("csv") else "\t"
        rows = pd.DataFrame({"text": [f"a{delimiter}b\nc"], "label": ["x"]})
        write_file(rows, tmp_path / name, SnapshotParams(source="-"))

        assert take(tmp_path, name)["text"].tolist() == [f"a{delimiter}b\nc"]
    assert "lines 2 to 3 are one row" in caplog.text


@pytest.mark.parametrize("text", ["a, b", "a\nb", "a\rb"])
def test_cells_that_need_quotes_are_refused_without_quoting(tmp_path: Path, text: str) -> None:
    settings = SnapshotParams(source="-", quoting="none")

    with pytest.raises(BadData, match=r"rows\.csv: with snapshot\.quoting none"):
        write_file(pd.DataFrame({"text": [text], "label": ["x"]}), tmp_path / "rows.csv", settings)
    assert not list(tmp_path.iterdir())


def test_init_detects_quotes_as_text(tmp_path: Path) -> None:
    write(tmp_path / "rows.tsv", with_joined_rows(5, 25))
    write_params(tmp_path / "rows.tsv", tmp_path / "params.yaml", name=None, force=False)

    assert read_params(tmp_path / "params.yaml").snapshot.quoting == "none"
    assert guess_columns(write(tmp_path / "plain.tsv", ROWS)).settings.quoting is None


def test_init_detects_escaped_quotes(tmp_path: Path) -> None:
    rows = [[f'"{number}"', rf'"he said \"{text}\" to me"', f'"{label}"'] for number, text, label in ROWS]
    path = tmp_path / "rows.csv"
    path.write_text("".join(",".join(row) + "\n" for row in [['"id"', '"text"', '"label"'], *rows]), encoding="utf-8")

    guess = guess_columns(path)

    assert (guess.settings.quoting, guess.columns) == ("backslash", {"id": "id", "text": "text", "label": "label"})
