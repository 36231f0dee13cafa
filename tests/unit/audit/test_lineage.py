"""Find the versions that used a row or a snapshot."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.mlflow_store.tracking.rows import digest_text
from flows.audit.lineage import matching_digests, row_uses
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


def test_row_is_found_by_id(rows: Path) -> None:
    assert row_uses(rows, "t1") == ["trained on"]
    assert row_uses(rows, "t2") == ["quarantined: id is not unique", "tested on"]
    assert row_uses(rows, "t") == []


def test_rows_are_found_by_digest_of_text(rows: Path) -> None:
    assert row_uses(rows, digest_text("one")) == ["trained on", "validated on"]


def test_snapshot_is_found_by_digest_prefix() -> None:
    registered = version(1, retune__data_digest="abcdef0123", retune__test_digest="abcdef9999")

    assert list(matching_digests(registered, "ABCDEF0")) == ["snapshot"]
    assert list(matching_digests(registered, "abcdef")) == ["snapshot", "test set"]
    assert list(matching_digests(registered, "abc")) == []  # too short: could be a row id
