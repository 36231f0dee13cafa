"""A source becomes one immutable snapshot: files (CSV, TSV, JSONL, Parquet), a database, an S3 store, a dataset of the hub.

Reads what `snapshot.source` names; writes `data/raw`: Parquet parts named by content hash, and `manifest.json`.
"""

from components.data.snapshot.new_labels import new_labels
from components.data.snapshot.settings import SnapshotParams
from components.data.snapshot.take import look_at, read_file, take_snapshot
from components.data.snapshot.writers import write_file

__all__ = ["SnapshotParams", "look_at", "new_labels", "read_file", "take_snapshot", "write_file"]
