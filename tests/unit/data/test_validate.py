"""Bad rows go to quarantine with a reason, and a snapshot unfit for training is rejected with all reasons."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from components.artifacts.manifest import SnapshotManifest
from components.artifacts.rows import read_rows, write_rows
from components.artifacts.validation import Check, ValidationReport
from components.core.errors import BadData, BadParams, NotFound, RetuneError
from components.data.snapshot import SnapshotParams, take_snapshot
from components.data.validate.row_ids import COPY, SHARED, add_ids_and_groups
from components.data.validate.settings import ValidateParams
from components.data.validate.step import validate

pytestmark = pytest.mark.filterwarnings("ignore:module 'sre_.*' is deprecated:DeprecationWarning")  # Great Expectations imports them

LENIENT = {"min_rows": 2, "min_rows_per_class": 1, "max_quarantined_share": 1.0, "max_duplicate_share": 1.0}


def check(root: Path, frame: pd.DataFrame, **settings: object) -> ValidationReport:
    """Take a snapshot of the rows, validate it, and return the report."""
    write_rows(frame.astype(object), root / "rows.parquet")
    take_snapshot(root, root / "raw", snapshot=SnapshotParams(source="rows.parquet"))
    params = ValidateParams.parse(settings, "validate")
    validate(root / "raw", root / "validated", task="text_classification", validate=params)
    return ValidationReport.read(root / "validated")


def quarantine(root: Path) -> dict[str | None, str]:
    """Return the reasons by id."""
    frame = read_rows(root / "validated" / "quarantine.parquet").astype(object)
    return dict(zip(frame["id"], frame["reason"], strict=True))


def kept(root: Path) -> pd.DataFrame:
    return read_rows(root / "validated" / "kept.parquet")


def check_of(report: ValidationReport, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


def eight_rows(**columns: list[str | None]) -> pd.DataFrame:
    """Return eight good rows of two classes, with the first rows replaced."""
    frame = pd.DataFrame(
        {
            "id": [f"i{number}" for number in range(8)],
            "group": [f"g{number // 2}" for number in range(8)],
            "text": [f"a good text, number {number}" for number in range(8)],
            "label": ["x", "y"] * 4,
        },
        dtype=object,
    )
    for name, values in columns.items():
        frame.loc[: len(values) - 1, name] = values
    return frame


# Kept rows


def test_good_rows_are_kept_in_order_with_a_report(tmp_path: Path, tickets: pd.DataFrame) -> None:
    report = check(tmp_path, tickets.assign(channel="mail", area="north").sample(frac=1, random_state=1))

    assert report.accepted
    assert (report.rows_in, report.kept, report.quarantined, report.reasons) == (240, 240, 0, {})
    assert report.snapshot == SnapshotManifest.read(tmp_path / "raw").digest
    assert report.grouped is ("group" in tickets)
    assert {check.scope for check in report.checks} == {"row", "suite"}
    assert all(check.passed for check in report.checks)
    assert list(kept(tmp_path).columns) == ["id", "group", "text", "label", "area", "channel"]
    pd.testing.assert_frame_equal(kept(tmp_path)[list(tickets.columns)], tickets)
    assert list(read_rows(tmp_path / "validated" / "quarantine.parquet").columns)[-1] == "reason"


def test_same_snapshot_gives_the_same_bytes(tmp_path: Path) -> None:
    check(tmp_path, eight_rows(text=[""]), **LENIENT)
    first = {path.name: path.read_bytes() for path in (tmp_path / "validated").iterdir()}
    check(tmp_path, eight_rows(text=[""]).iloc[::-1], **LENIENT)

    assert {path.name: path.read_bytes() for path in (tmp_path / "validated").iterdir()} == first


def test_missing_ids_and_groups_come_from_the_text(tmp_path: Path) -> None:
    rows = eight_rows().drop(columns=["id", "group"])
    again = rows.head(1).assign(text="a  good text,\u00a0number \u2070", label="y")

    report = check(tmp_path, pd.concat([rows, rows.head(1), again], ignore_index=True), **LENIENT)

    assert report.grouped is False
    frame = kept(tmp_path)
    same = frame.loc[frame["text"].isin([rows["text"][0], again["text"][0]])]
    first = same["group"].iloc[0]
    assert len(first) == 16
    assert sorted(same["id"]) == [first, f"{first}#2", f"{first}#3"]
    assert set(same["group"]) == {first}
    assert frame["id"].is_unique
    assert frame["group"].nunique() == 8


def test_order_and_new_columns_change_no_id() -> None:
    rows = pd.concat([eight_rows(), eight_rows(label=["y", "x"]).head(2)], ignore_index=True).drop(columns=["id", "group"])
    ids = add_ids_and_groups(rows, ["text"])["id"]

    assert add_ids_and_groups(rows.iloc[::-1][["label", "text"]], ["text"])["id"].sort_index().tolist() == ids.tolist()
    assert add_ids_and_groups(rows.assign(area="north"), ["text"])["id"].tolist() == ids.tolist()
    assert ids.is_unique


def test_missing_group_is_the_id_and_given_group_stays() -> None:
    assert add_ids_and_groups(eight_rows().drop(columns="group"), ["text"])["group"].tolist() == eight_rows()["id"].tolist()
    assert add_ids_and_groups(eight_rows().drop(columns="id"), ["text"])["group"].tolist() == eight_rows()["group"].tolist()


# Bad rows


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"text": [None, "", "  \n", "\u200b \ufeff"]}, dict.fromkeys(["i0", "i1", "i2", "i3"], "text is empty")),
        ({"text": ["a"]}, {"i0": "text has fewer than 2 characters (validate.min_characters)"}),
        ({"text": ["a" * 20_001]}, {"i0": "text has more than 20000 characters (validate.max_characters)"}),
        ({"text": ["bell\x07", "nul\x00l", "quote\x92s"]}, dict.fromkeys(["i0", "i1", "i2"], "text has a control character")),
        ({"text": ["tab\tand\r\nlines", "NA", "null", "nan"]}, {}),
        ({"label": [None, " "]}, dict.fromkeys(["i0", "i1"], "label is empty")),
        ({"group": [None, ""]}, dict.fromkeys(["i0", "i1"], "group is empty")),
        ({"id": [None], "text": [None, ""], "label": [None]}, {None: "id is empty; text is empty; label is empty", "i1": "text is empty"}),
    ],
)
def test_bad_row_is_quarantined_with_every_reason(
    tmp_path: Path, columns: dict[str, list[str | None]], expected: dict[str | None, str]
) -> None:
    report = check(tmp_path, eight_rows(**columns), **LENIENT)

    reasons = {(None if pd.isna(name) else name): reason for name, reason in quarantine(tmp_path).items()}
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert set(reason.split("; ")) <= set(reasons[name].split("; "))
    assert report.accepted
    assert report.rows_in == 8 == report.kept + report.quarantined
    assert report.quarantined == len(expected)
    assert sum(report.reasons.values()) == sum(len(reason.split("; ")) for reason in reasons.values())


def test_rows_with_an_unknown_label_are_quarantined(tmp_path: Path) -> None:
    report = check(tmp_path, eight_rows(label=["sprot", "z", "sprot"]), labels=["x", "y"], **LENIENT)

    assert quarantine(tmp_path) == dict.fromkeys(["i0", "i1", "i2"], "label is not in validate.labels")
    assert check_of(report, "labels").observed == "'sprot' (2), 'z' (1) in 3 of 8 rows"
    assert check_of(report, "labels").failures == 3


def test_shared_ids_keep_one_copy_or_no_row(tmp_path: Path) -> None:
    rows = eight_rows(id=["same", "same", "torn", "torn", "torn"])
    rows.loc[1] = rows.loc[0]
    rows.loc[4] = rows.loc[3]

    report = check(tmp_path, rows, **LENIENT)

    assert report.reasons == {COPY: 1, SHARED: 3}
    assert kept(tmp_path)["id"].tolist() == ["i5", "i6", "i7", "same"]
    frame = read_rows(tmp_path / "validated" / "quarantine.parquet")
    assert frame.groupby("id")["reason"].unique().map(list).to_dict() == {"same": [COPY], "torn": [SHARED]}


def test_data_column_reason_is_not_overwritten(tmp_path: Path) -> None:
    check(tmp_path, eight_rows(text=[""]).assign(reason="theirs"), **LENIENT)

    assert (kept(tmp_path)["reason"] == "theirs").all()
    row = read_rows(tmp_path / "validated" / "quarantine.parquet").iloc[0]
    assert row["source_reason"] == "theirs"
    assert row["reason"].startswith("text is empty")


@pytest.mark.slow
def test_very_long_text_is_quarantined(tmp_path: Path) -> None:
    check(tmp_path, eight_rows(), **LENIENT)
    report = check(tmp_path, eight_rows(text=["a" * 100_000, " " * 100_000, "word " * 20_000]), **LENIENT)

    assert report.reasons == {"text has more than 20000 characters (validate.max_characters)": 3, "text is empty": 1}


# Rejected snapshots


def rejected(root: Path, frame: pd.DataFrame, **settings: object) -> str:
    with pytest.raises(BadData) as caught:
        check(root, frame, **settings)
    report = ValidationReport.read(root / "validated")
    assert not report.accepted
    assert report.rows_in == report.kept + report.quarantined
    assert str(root / "validated" / "report.json") in str(caught.value)
    return str(caught.value)


def test_single_class_is_rejected(tmp_path: Path, tickets: pd.DataFrame) -> None:
    message = rejected(tmp_path, tickets.assign(label="billing"))

    assert "two_classes: expected at least two different labels, found 1: 'billing' (240)" in message
    assert message.count("\n") == 1


def test_empty_texts_are_rejected(tmp_path: Path, tickets: pd.DataFrame) -> None:
    message = rejected(tmp_path, tickets.assign(text=""))

    assert "min_rows: expected at least 100 rows (validate.min_rows), found 0 rows after quarantine" in message
    assert "found 240 of 240 (text has fewer than 2 characters (validate.min_characters): 240, text is empty: 240)" in message
    assert len(quarantine(tmp_path)) == 240


def test_equal_texts_are_rejected(tmp_path: Path, tickets: pd.DataFrame) -> None:
    message = rejected(tmp_path, tickets.assign(text="lorem ipsum"))

    assert "texts_differ: expected more than one different text, found 1, 'lorem ipsum' in all 240 rows" in message
    assert "duplicate_share: expected at most 50.0%" in message
    assert "found 99.6%" in message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["0", "1"], "found 2 of 2 labels fail: '0' (120), '1' (120)"),
        (["1.5", "-2", "3e4"], "found 3 of 3 labels"),
        (["good", "7"], "found 1 of 2 labels fail: '7' (120)"),
    ],
)
def test_numeric_labels_are_refused_unless_allowed(tmp_path: Path, tickets: pd.DataFrame, labels: list[str], expected: str) -> None:
    frame = tickets.assign(label=(labels * 240)[:240])

    message = rejected(tmp_path, frame)
    assert (
        "numeric_labels: expected labels that are not numbers (if numbers are class names, set validate.numeric_labels: allow)" in message
    )
    assert expected in message
    assert check(tmp_path, frame, numeric_labels="allow").accepted
    assert check(tmp_path, frame, labels=labels).accepted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        (["1", "2", "3"], "{kind: ordinal}"),
        (["a;b", "a;c", "b;c", *(f"a;x{number}" for number in range(12))], "contain ';'.*{kind: multi}"),
        (["a|b", *(f"a|x{number}" for number in range(14))], "{kind: multi, separator: '\\|'}"),
        ([f'["B-A", "t{number}"]' for number in range(13)], "are lists.*task: token_classification"),
    ],
)
def test_rejection_names_the_option_that_fits(tmp_path: Path, tickets: pd.DataFrame, labels: list[str], hint: str) -> None:
    message = rejected(tmp_path, tickets.assign(label=(labels * 240)[:240]))

    assert re.search(hint, message)


def test_labels_like_grade_1_are_accepted(tmp_path: Path, tickets: pd.DataFrame) -> None:
    frame = tickets.assign(label=["grade 1", "2b", "A-3"] * 80)

    assert check(tmp_path, frame).accepted


def test_rare_or_missing_class_is_reported(tmp_path: Path, tickets: pd.DataFrame) -> None:
    frame = tickets.copy()
    frame.loc[:4, "label"] = "rare"

    message = rejected(tmp_path, frame, labels=["billing", "network", "device", "rare", "never"])

    assert "expected at least 20 rows of every label (validate.min_rows_per_class)" in message
    assert "found 2 of 5 labels fail: 'never' (0), 'rare' (5)" in message


def test_class_rows_are_counted_after_quarantine(tmp_path: Path, tickets: pd.DataFrame) -> None:
    frame = tickets.copy()
    frame.loc[frame["label"] == "device", "text"] = "\x07 damaged"

    message = rejected(tmp_path, frame, labels=["billing", "network", "device"])

    assert "'device' (0)" in message
    assert "found 81 of 240 (text has a control character: 81)" in message


def test_all_failed_checks_are_reported(tmp_path: Path) -> None:
    message = rejected(tmp_path, eight_rows(text=[""]))

    for part in ("min_rows: ", "min_rows_per_class: ", "quarantined_share: expected at most 10.0% of the rows in quarantine"):
        assert part in message


def test_share_of_duplicates_is_limited(tmp_path: Path, tickets: pd.DataFrame) -> None:
    frame = tickets.copy()
    frame.loc[:99, "text"] = "the same again"

    assert "duplicate_share" in rejected(tmp_path, frame, max_duplicate_share=0.4)
    assert check(tmp_path, frame, max_duplicate_share=0.42).accepted


def test_missing_column_error_suggests_similar_names(tmp_path: Path) -> None:
    message = rejected(tmp_path, eight_rows().rename(columns={"label": "lable"}))

    assert "column_exists: expected a column 'label', found none; did you mean 'lable'?" in message


def test_crashed_check_is_not_bad_data(tmp_path: Path) -> None:
    from components.data.validate import suite

    expectations = suite.row_expectations(["text", "no such column"], [], min_characters=1, max_characters=9, labels=[])

    with pytest.raises(RetuneError, match="'no such column' crashed; the data may be fine") as caught:
        suite.run_checks(expectations, eight_rows())
    assert not isinstance(caught.value, BadData)


def test_damaged_or_missing_snapshot_is_not_bad_data(tmp_path: Path, tickets: pd.DataFrame) -> None:
    check(tmp_path, tickets)
    before = {path.name: path.read_bytes() for path in (tmp_path / "validated").iterdir()}
    part = next((tmp_path / "raw").glob("part-*"))
    part.write_bytes(part.read_bytes()[:-1])

    with pytest.raises(NotFound, match="is corrupt"):
        validate(tmp_path / "raw", tmp_path / "validated", task="text_classification", validate=ValidateParams())
    with pytest.raises(NotFound, match=r"manifest\.json is missing"):
        validate(tmp_path / "none", tmp_path / "validated", task="text_classification", validate=ValidateParams())

    assert {path.name: path.read_bytes() for path in (tmp_path / "validated").iterdir()} == before


def test_unknown_task_error_lists_the_tasks(tmp_path: Path) -> None:
    with pytest.raises(BadParams, match="text_classification"):
        validate(tmp_path, tmp_path / "validated", task="text_clasification", validate=ValidateParams())


# Settings


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"min_characters": 9, "max_characters": 3}, "min_characters 9 is more than max_characters 3"),
        ({"labels": ["x"]}, "expected none or at least two, found only 'x'"),
        ({"labels": ["x", "y", "x"]}, "'x' appears more than once"),
        ({"labels": ["x", " "]}, "a label cannot be an empty text"),
        ({"labels": [1, 2]}, "validate.labels.0: expected a text, found 1; put it in quotes"),
        ({"numeric_labels": "maybe"}, "validate.numeric_labels"),
        ({"min_rows": 0}, "validate.min_rows: input should be greater than or equal to 2"),
        ({"max_quarantined_share": 1.5}, "validate.max_quarantined_share"),
        ({"min_row": 5}, "validate.min_row is not a setting; did you mean 'min_rows'?"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], expected: str) -> None:
    with pytest.raises(BadParams) as caught:
        ValidateParams.parse(settings, "validate")

    assert expected in str(caught.value)


def test_settings_do_not_import_great_expectations() -> None:
    code = "import sys, components.data.validate.settings; sys.exit('great_expectations' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.exhaustive
@pytest.mark.slow
def test_half_of_two_hundred_thousand_rows_is_quarantined(tmp_path: Path) -> None:
    number = pd.Series(range(200_000)).astype(str)
    frame = pd.DataFrame({"id": "i" + number, "text": "the text of row " + number, "label": "c" + number.str[-1]})
    frame.loc[::2, "text"] = ""

    report = check(tmp_path, frame, max_quarantined_share=1.0)

    assert report.quarantined == 100_000
