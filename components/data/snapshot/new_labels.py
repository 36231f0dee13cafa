"""What is new in a snapshot: the rows with a label that an earlier one had not."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from components.artifacts.manifest import SnapshotManifest
from components.artifacts.rows import MARKS, PSEUDO, canonical, read_parts

Hashes = npt.NDArray[np.uint64]

_LABEL = "label"
_BYTES = 8  # of a hash: among 10 million rows of either, one is taken for another in one of 180,000 comparisons


def new_labels(earlier: Path | None, now: Path) -> int:
    """Return how many different rows of the snapshot `now` have a label and are not in the snapshot `earlier`, which may be missing.

    Rows are compared by the columns that both have. A row has a label when its column `label`, where there is one, is not blank and is
    no model's answer (`pseudo`); so a label that a person has confirmed since is new. A hash of 8 bytes a row is held.

    Raises:
        NotThere: there is no snapshot in `now`, or a part of one of them is missing or corrupt.
    """
    after, before = SnapshotManifest.read(now), _standing(earlier)
    if before is not None and before.digest == after.digest:
        return 0
    shared = [name for name in after.columns if before is not None and name in before.columns and name not in MARKS]
    if earlier is None or not shared:
        return len(_hashes(now, after.columns))
    return len(np.setdiff1d(_hashes(now, shared), _hashes(earlier, shared), assume_unique=True))


def _standing(folder: Path | None) -> SnapshotManifest | None:
    return SnapshotManifest.read(folder) if folder is not None and (folder / SnapshotManifest.FILE).exists() else None


def _hashes(folder: Path, columns: Sequence[str]) -> Hashes:
    """Return the different hashes of the labelled rows, restricted to `columns`."""
    return np.unique(np.concatenate([np.empty(0, np.uint64), *(_of_batch(batch, columns) for batch in read_parts(folder))]))


def _of_batch(batch: pa.RecordBatch, columns: Sequence[str]) -> Hashes:
    rows = zip(*(batch.column(name).to_pylist() for name in columns), strict=True)
    return np.frombuffer(b"".join(_digest(row) for row, counts in zip(rows, _labelled(batch), strict=True) if counts), np.uint64)


def _digest(row: Sequence[str | None]) -> bytes:
    return hashlib.blake2b(canonical(row), digest_size=_BYTES).digest()


def _labelled(batch: pa.RecordBatch) -> Iterator[bool]:
    """Say of each row whether a person has labelled it."""
    names = batch.schema.names
    labels = batch.column(_LABEL).to_pylist() if _LABEL in names else ["labelled"] * len(batch)
    pseudo = batch.column(PSEUDO).to_pylist() if PSEUDO in names else [None] * len(batch)
    return (bool((label or "").strip()) and not (mark or "").strip() for label, mark in zip(labels, pseudo, strict=True))
