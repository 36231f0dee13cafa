"""The shipped example: what is committed is what build.py makes."""

import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "diagnosis"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with (EXAMPLE / "diagnosis.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_building_twice_gives_the_bytes_that_are_committed(tmp_path: Path) -> None:
    pytest.importorskip("simple_icd_10_cm", reason="the example extra is not installed")
    for name in ("first.csv", "second.csv"):
        subprocess.run([sys.executable, EXAMPLE / "build.py", tmp_path / name], check=True, capture_output=True)

    committed = (EXAMPLE / "diagnosis.csv").read_bytes()
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes() == committed


def test_it_has_the_rows_classes_and_columns_that_the_readme_promises(rows: list[dict[str, str]]) -> None:
    assert len(rows) == 10_182
    assert len({row["label"] for row in rows}) == 21
    assert len({row["group"] for row in rows}) == 1_916
    assert list(rows[0]) == ["id", "group", "text", "label", "kind"]
    assert {row["kind"] for row in rows} == {"title", "inclusion"}
    assert "10,182" in (EXAMPLE / "README.md").read_text(encoding="utf-8")


def test_ids_are_unique_and_a_category_has_at_most_six_rows_of_one_chapter(rows: list[dict[str, str]]) -> None:
    assert len({row["id"] for row in rows}) == len(rows)
    assert max(Counter(row["group"] for row in rows).values()) == 6
    assert len({(row["group"], row["label"]) for row in rows}) == 1_916


def test_no_label_gives_the_codes_away_and_no_cell_is_empty(rows: list[dict[str, str]]) -> None:
    assert not [row["label"] for row in rows if "(" in row["label"]]
    assert all(cell.strip() == cell != "" for row in rows for cell in row.values())
