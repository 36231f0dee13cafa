import json
from collections.abc import Sequence
from pathlib import Path

from tests.support.sources import Row, SourceCase


def create_source(folder: Path, columns: Sequence[str], rows: Sequence[Row]) -> SourceCase:
    (folder / "tickets.jsonl").write_text(as_jsonl(columns, rows), encoding="utf-8")
    return SourceCase({"source": "tickets.jsonl"})


def missing_source(folder: Path) -> SourceCase:
    return SourceCase({"source": str(folder / "none.csv")})


def as_jsonl(columns: Sequence[str], rows: Sequence[Row]) -> str:
    return "".join(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
