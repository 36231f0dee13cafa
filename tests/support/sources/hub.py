from collections.abc import Sequence
from pathlib import Path

from components.core.hashing import digest_value
from tests.support.sources import Row, SourceCase
from tests.support.sources.files import as_jsonl

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def create_source(folder: Path, columns: Sequence[str], rows: Sequence[Row]) -> SourceCase:
    half = len(rows) // 2
    parts = {"data/a.jsonl": rows[:half], "data/b.jsonl": rows[half:]}
    in_cache(folder / "hub", {name: as_jsonl(columns, part).encode() for name, part in parts.items()})
    return SourceCase({"source": "hub://acme/tickets@main"}, {"HF_HUB_CACHE": str(folder / "hub")})


def missing_source(folder: Path) -> SourceCase:
    return SourceCase({"source": "hub://acme/none@main"}, {"HF_HUB_CACHE": str(folder / "hub")})


def in_cache(cache: Path, files: dict[str, bytes], commit: str = COMMIT) -> None:
    """Write acme/tickets in the layout of the hub's cache: blobs by hash, and a snapshot of links to them, for `main`."""
    home = cache / "datasets--acme--tickets"
    for folder in ("blobs", "refs"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    (home / "refs" / "main").write_text(commit, encoding="utf-8")
    for name, body in files.items():
        blob = home / "blobs" / digest_value(body.hex())
        blob.write_bytes(body)
        link = home / "snapshots" / commit / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(blob)
