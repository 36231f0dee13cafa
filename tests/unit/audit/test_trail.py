"""From a row or a snapshot forward to the versions that saw it."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.mlflow_store.tracking.rows import digest_text
from flows.audit.lineage import places, snapshots
from tests.support.audit_models import version


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    table = {
        "id": ["t1", "t2", "t2", "t3"],
        "split": ["trained on", "quarantined: id is not unique", "tested on", "validated on"],
        "text": [digest_text("one"), digest_text("two"), digest_text("two"), digest_text("one")],
    }
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def test_a_row_is_found_by_its_id(rows: Path) -> None:
    assert places(rows, "t1") == ["trained on"]
    assert places(rows, "t2") == ["quarantined: id is not unique", "tested on"]
    assert places(rows, "t") == []


def test_rows_are_found_by_the_digest_of_their_text(rows: Path) -> None:
    assert places(rows, digest_text("one")) == ["trained on", "validated on"]


def test_a_snapshot_is_found_by_the_beginning_of_its_digest() -> None:
    one = version(1, retune__data_digest="abcdef0123", retune__test_digest="abcdef9999")

    assert list(snapshots(one, "ABCDEF0")) == ["snapshot"]
    assert list(snapshots(one, "abcdef")) == ["snapshot", "test set"]
    assert list(snapshots(one, "abc")) == []  # so short that a row's id would be taken for it
