import json
from collections.abc import Sequence
from pathlib import Path

from tests.support.sources import Place, Row


def put(folder: Path, columns: Sequence[str], rows: Sequence[Row]) -> Place:
    (folder / "tickets.jsonl").write_text(as_jsonl(columns, rows), encoding="utf-8")
    return Place({"source": "tickets.jsonl"})


def nowhere(folder: Path) -> Place:
    return Place({"source": str(folder / "none.csv")})


def as_jsonl(columns: Sequence[str], rows: Sequence[Row]) -> str:
    return "".join(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
