"""A source (CSV, TSV, JSONL or Parquet) becomes one immutable snapshot.

Reads the files that `snapshot.source` names; writes `data/raw`: Parquet parts named by content hash, and `manifest.json`.
"""

from components.snapshot.settings import SnapshotParams
from components.snapshot.take import read_file, take_snapshot
from components.snapshot.writing import write_file

__all__ = ["SnapshotParams", "read_file", "take_snapshot", "write_file"]
