from collections.abc import Sequence
from pathlib import Path

from tests.support.s3 import environment, new_bucket
from tests.support.sources import Row, SourceCase
from tests.support.sources.files import as_jsonl


def create_source(folder: Path, columns: Sequence[str], rows: Sequence[Row]) -> SourceCase:
    half = len(rows) // 2
    parts = {"tickets/a.jsonl": rows[:half], "tickets/b/c.jsonl": rows[half:]}
    bucket = new_bucket({key: as_jsonl(columns, part).encode() for key, part in parts.items()})
    return SourceCase({"source": f"s3://{bucket}/tickets"}, environment())


def missing_source(folder: Path) -> SourceCase:
    return SourceCase({"source": "s3://no-such-bucket/tickets"}, environment())
