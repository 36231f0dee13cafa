"""Count the labelled rows of a snapshot that an earlier snapshot does not contain."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.artifacts.manifest import SnapshotManifest
from components.artifacts.rows import MARKS, canonical, pseudo_labelled, read_parts

Hashes = npt.NDArray[np.uint64]

_LABEL = "label"
_BYTES = 8  # of a hash: with 10 million rows each, a collision occurs in one of 180,000 comparisons


def new_labels(earlier: Path | None, now: Path) -> int:
    """Return how many distinct labelled rows of the snapshot `now` are not in the snapshot `earlier`, which may be missing.

    Rows are compared by the columns that both snapshots have. A row is labelled if its `label` is not blank (or the column is missing)
    and it is not a pseudo-label; so a confirmed pseudo-label is new. Memory: 8 bytes per row.

    Raises:
        NotFound: the snapshot `now` is missing, or a part of either snapshot is missing or damaged.
    """
    after = SnapshotManifest.read(now)
    before = SnapshotManifest.read(earlier) if earlier is not None and (earlier / SnapshotManifest.FILE).exists() else None
    if before is not None and before.digest == after.digest:
        return 0
    shared = [name for name in after.columns if before is not None and name in before.columns and name not in MARKS]
    if earlier is None or not shared:
        return len(_hashes(now, after.columns))
    return len(np.setdiff1d(_hashes(now, shared), _hashes(earlier, shared), assume_unique=True))


def _hashes(folder: Path, columns: Sequence[str]) -> Hashes:
    """Return the distinct hashes of the labelled rows, restricted to `columns`."""
    return np.unique(np.concatenate([np.empty(0, np.uint64), *(_of_batch(batch, columns) for batch in read_parts(folder))]))


def _of_batch(batch: pa.RecordBatch, columns: Sequence[str]) -> Hashes:
    frame = batch.to_pandas()
    labelled = ~pseudo_labelled(frame)
    if _LABEL in frame:
        labelled &= frame[_LABEL].fillna("").str.strip().ne("")
    kept = batch.filter(pa.array(labelled))
    rows = zip(*(kept.column(name).to_pylist() for name in columns), strict=True)
    return np.frombuffer(b"".join(hashlib.blake2b(canonical(row), digest_size=_BYTES).digest() for row in rows), np.uint64)
