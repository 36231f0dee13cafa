"""Count the new labels of a snapshot, which decide whether a scheduled run starts."""

from pathlib import Path

import pandas as pd
import pytest

from components.artifacts.rows import write_rows
from components.core.errors import NotFound
from components.data.snapshot import SnapshotParams, new_labels, take_snapshot

ROWS = pd.DataFrame(
    {"id": [f"i{n}" for n in range(20)], "text": [f"text {n}" for n in range(20)], "label": ["a", "b"] * 10},
)
MORE = pd.DataFrame({"id": ["i20", "i21"], "text": ["text 20", "text 21"], "label": ["a", "c"]})


def snapshot(root: Path, name: str, *tables: pd.DataFrame) -> Path:
    write_rows(pd.concat(tables, ignore_index=True).astype("str").where(lambda frame: frame.notna(), None), root / f"{name}.parquet")
    take_snapshot(root, root / name, snapshot=SnapshotParams(source=f"{name}.parquet"))
    return root / name


def test_only_added_distinct_rows_count(tmp_path: Path) -> None:
    earlier = snapshot(tmp_path, "earlier", ROWS)
    now = snapshot(tmp_path, "now", ROWS.iloc[5:], MORE, MORE)

    assert new_labels(earlier, now) == 2
    assert new_labels(now, earlier) == 5
    assert new_labels(now, now) == 0


@pytest.mark.parametrize("name", ["missing", None])
def test_without_an_earlier_snapshot_every_label_is_new(tmp_path: Path, name: str | None) -> None:
    now = snapshot(tmp_path, "now", ROWS, MORE.assign(label=["a", None]), MORE.assign(label=["z", " "]))

    assert new_labels(tmp_path / name if name else None, now) == 22


def test_changed_label_is_new_and_removed_label_is_not(tmp_path: Path) -> None:
    earlier = snapshot(tmp_path, "earlier", ROWS)
    changed = ROWS.assign(label=["z", None, " ", *ROWS["label"][3:]])

    assert new_labels(earlier, snapshot(tmp_path, "now", changed)) == 1


def test_rows_are_compared_by_shared_columns(tmp_path: Path) -> None:
    earlier = snapshot(tmp_path, "earlier", ROWS.assign(agent="ann"))
    wider = snapshot(tmp_path, "now", ROWS.assign(channel="mail"), MORE.assign(channel="mail"))
    without_id = snapshot(tmp_path, "anonymous", ROWS.drop(columns="id"))

    assert new_labels(earlier, wider) == 2
    assert new_labels(earlier, without_id) == 0
    assert new_labels(earlier, snapshot(tmp_path, "foreign", pd.DataFrame({"source": ["a", "b"], "target": ["c", "d"]}))) == 2


def test_pseudo_label_counts_only_after_confirmation(tmp_path: Path) -> None:
    guessed = MORE.assign(pseudo="tickets/3", confidence="0.99")
    earlier = snapshot(tmp_path, "earlier", ROWS)
    with_guesses = snapshot(tmp_path, "guesses", ROWS.assign(pseudo=None, confidence=None), guessed)

    assert new_labels(earlier, with_guesses) == 0
    assert new_labels(None, with_guesses) == 20
    assert new_labels(with_guesses, snapshot(tmp_path, "confirmed", ROWS, MORE)) == 2
    assert new_labels(snapshot(tmp_path, "only guesses", guessed), snapshot(tmp_path, "first", MORE)) == 2


def test_task_without_labels_counts_its_rows(tmp_path: Path) -> None:
    pairs = pd.DataFrame({"source": ["a", "b"], "target": ["c", "d"]})
    earlier = snapshot(tmp_path, "earlier", pairs)

    assert new_labels(earlier, snapshot(tmp_path, "now", pairs, pd.DataFrame({"source": ["e"], "target": ["f"]}))) == 1


def test_missing_or_damaged_snapshot_is_an_error(tmp_path: Path) -> None:
    earlier, now = snapshot(tmp_path, "earlier", ROWS), snapshot(tmp_path, "now", ROWS, MORE)
    with pytest.raises(NotFound, match=r"manifest\.json is missing"):
        new_labels(earlier, tmp_path / "none")
    next(earlier.glob("part-*")).write_bytes(b"broken")

    with pytest.raises(NotFound, match="is corrupt"):
        new_labels(earlier, now)
