from collections.abc import Sequence
from pathlib import Path

from tests.support.s3 import environment, new_bucket
from tests.support.sources import Place, Row
from tests.support.sources.files import as_jsonl


def put(folder: Path, columns: Sequence[str], rows: Sequence[Row]) -> Place:
    half = len(rows) // 2
    parts = {"tickets/a.jsonl": rows[:half], "tickets/b/c.jsonl": rows[half:]}
    bucket = new_bucket({key: as_jsonl(columns, part).encode() for key, part in parts.items()})
    return Place({"source": f"s3://{bucket}/tickets"}, environment())


def nowhere(folder: Path) -> Place:
    return Place({"source": "s3://no-such-bucket/tickets"}, environment())
