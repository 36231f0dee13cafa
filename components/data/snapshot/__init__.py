"""Turn a source into an immutable snapshot: files (CSV, TSV, JSONL, Parquet), a database, an S3 bucket, or a Hugging Face dataset.

Reads `snapshot.source`; writes `data/raw`: Parquet parts named by content hash, and `manifest.json`.
"""

from components.data.snapshot.new_labels import new_labels
from components.data.snapshot.settings import SnapshotParams
from components.data.snapshot.take import describe_source, read_file, take_snapshot
from components.data.snapshot.writers import write_file

__all__ = ["SnapshotParams", "describe_source", "new_labels", "read_file", "take_snapshot", "write_file"]
