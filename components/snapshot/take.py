"""Take a snapshot: read every file of the source strictly, order the rows by hash, and swap the result in at the end."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from components.artifacts.manifest import Manifest
from components.artifacts.pinned import aside, swap
from components.artifacts.rows import MARKS, verify
from components.errors import BadSource, NotThere
from components.snapshot.faults import Faults
from components.snapshot.settings import SnapshotParams
from components.snapshot.source import READERS, find_files, format_of, name_columns, same_columns
from components.snapshot.store import Buckets, write_parts

log = logging.getLogger(__name__)

_REPORT_EVERY = 10_000  # rows


def take_snapshot(
    root: Path,
    out: Path,
    *,
    snapshot: SnapshotParams,
    required: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Write the rows of `snapshot.source`, relative to `root`, into `out`; unchanged rows leave `out` as it is.

    `required` are the canonical columns that the task needs; `progress` is told the number of rows read so far.

    Raises:
        BadSource: the source is missing or cannot be read as one table; with every fault of the first bad file.
        Unavailable: the disk is full; `out` is untouched.
    """
    files = find_files(root, snapshot.source)
    found = _read_columns(files, snapshot)
    marks = [name for name in MARKS if name not in found[files[0]] and any(name in each for each in found.values())]
    columns = name_columns(files[0], [*found[files[0]], *marks], snapshot, required)
    with aside(out) as partial:
        buckets = Buckets(partial / "buckets")
        for row in _read_rows(found, snapshot, list(columns.values())):
            buckets.add(row)
            if progress is not None and buckets.rows % _REPORT_EVERY == 0:
                progress(buckets.rows)
        if not buckets.rows:
            raise BadSource(f"{', '.join(map(str, files[:3]))}: a header and no rows; expected at least one row")
        digest, parts = write_parts(buckets, list(columns), partial)
        earlier = _standing(out)
        if earlier is not None and earlier.digest == digest:
            log.info("unchanged: the %d rows of %s are the snapshot of %s", earlier.rows, snapshot.source, earlier.taken_at)
            return earlier
        manifest = Manifest(
            source=_place(root, snapshot.source),
            format=format_of(files),
            rows=buckets.rows,
            columns=tuple(columns),
            source_columns=columns,
            parts=parts,
            digest=digest,
            taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        manifest.write(partial)
        swap(partial, out)
    log.info("%d rows and %d columns from %d files of %s in %d parts", manifest.rows, len(columns), len(files), snapshot.source, len(parts))
    return manifest


def read_file(path: Path, snapshot: SnapshotParams) -> pd.DataFrame:
    """Return the rows of one file under the names that its columns have there, read as strictly; every cell is text or null.

    Raises:
        BadSource: the file is missing or cannot be read as a table; with every fault.
    """
    if not path.is_file():
        raise BadSource(f"{path}: no such file")
    found = _read_columns(find_files(path.parent, path.name), snapshot)
    columns = next(iter(found.values()))
    return pd.DataFrame(list(_read_rows(found, snapshot, columns)), columns=columns, dtype="str")


def _read_columns(files: Sequence[Path], snapshot: SnapshotParams) -> dict[Path, list[str]]:
    """Return the columns of every file, checked before the first row is kept."""
    reader = READERS[format_of(files)]
    found: dict[Path, list[str]] = {}
    for path in files:
        with _readable(path):
            found[path] = reader.read_columns(path, snapshot, Faults(path))
        same_columns(files[0], found[files[0]], path, found[path])
    return found


def _read_rows(found: dict[Path, list[str]], snapshot: SnapshotParams, wanted: Sequence[str]) -> Iterator[list[str | None]]:
    """Yield the cells of every row, in the order of `wanted`."""
    reader = READERS[format_of(list(found))]
    for path, columns in found.items():
        faults = Faults(path)
        places = [columns.index(name) if name in columns else None for name in wanted]
        with _readable(path):
            for row in reader.read_rows(path, snapshot, columns, faults):
                yield [None if place is None else row[place] for place in places]
        faults.settle()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadSource(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BadSource(f"{path} was changed while it was read: {error}") from error


def _standing(out: Path) -> Manifest | None:
    """Return the manifest of the snapshot in `out`, if there is one and its parts are whole."""
    try:
        manifest = Manifest.read(out)
        for part in manifest.parts:
            verify(out, part)
    except NotThere:
        return None
    return manifest


def _place(root: Path, source: str) -> str:
    """Return the source relative to the workspace where it lies inside, so that a clone elsewhere has the same manifest."""
    path, base = (Path(os.path.abspath(each)) for each in (root / Path(source).expanduser(), root))
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else Path(source).as_posix()
