"""The shipped example matches the output of build.py."""

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
def test_build_is_reproducible_and_committed(tmp_path: Path) -> None:
    pytest.importorskip("simple_icd_10_cm", reason="the example extra is not installed")
    for name in ("first.csv", "second.csv"):
        subprocess.run([sys.executable, EXAMPLE / "build.py", tmp_path / name], check=True, capture_output=True)

    committed = (EXAMPLE / "diagnosis.csv").read_bytes()
    assert (tmp_path / "first.csv").read_bytes() == (tmp_path / "second.csv").read_bytes() == committed


def test_rows_classes_and_columns_match_the_readme(rows: list[dict[str, str]]) -> None:
    assert len(rows) == 10_182
    assert len({row["label"] for row in rows}) == 21
    assert len({row["group"] for row in rows}) == 1_916
    assert list(rows[0]) == ["id", "group", "text", "label", "kind"]
    assert {row["kind"] for row in rows} == {"title", "inclusion"}
    assert "10,182" in (EXAMPLE / "README.md").read_text(encoding="utf-8")


def test_ids_are_unique_and_groups_are_small(rows: list[dict[str, str]]) -> None:
    assert len({row["id"] for row in rows}) == len(rows)
    assert max(Counter(row["group"] for row in rows).values()) == 6
    assert len({(row["group"], row["label"]) for row in rows}) == 1_916


def test_labels_contain_no_codes_and_no_cell_is_empty(rows: list[dict[str, str]]) -> None:
    assert not [row["label"] for row in rows if "(" in row["label"]]
    assert all(cell.strip() == cell != "" for row in rows for cell in row.values())
