"""Take a snapshot: read every file that the source brings strictly, order the rows by hash, and swap the result in at the end."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePath
from types import ModuleType

import pandas as pd

from components.artifacts.manifest import Manifest
from components.artifacts.pinned import aside, swap
from components.artifacts.rows import MARKS, verify
from components.errors import BadSource, NotThere
from components.snapshot.faults import Faults, readable
from components.snapshot.settings import SnapshotParams
from components.snapshot.sources import Asked, Brought, source_of
from components.snapshot.store import Buckets, write_parts
from components.snapshot.tables import READERS, format_of, name_columns, same_columns

log = logging.getLogger(__name__)

_REPORT_EVERY = 10_000  # rows


def take_snapshot(
    root: Path,
    out: Path,
    *,
    snapshot: SnapshotParams,
    required: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Manifest:
    """Write the rows of `snapshot.source` into `out`; unchanged rows leave `out` as it is.

    Local paths are relative to `root`. `required` are the canonical columns that the task needs; `progress` is told the number of rows
    read so far; `environment` is where the addresses of databases stand (that of the process).

    Raises:
        BadParams: a setting does not fit the kind of source.
        BadSource: the source is missing or cannot be read as one table; with every fault of the first bad file.
        Unavailable: the source is out of reach, or the disk is full; `out` is untouched.
    """
    asked = Asked(snapshot, root, os.environ if environment is None else environment)
    source = source_of(snapshot)
    with aside(out) as partial:
        elsewhere = partial / "brought"
        elsewhere.mkdir()
        brought = source.bring(asked, elsewhere)
        columns, buckets = _sort_rows(brought, snapshot, required, partial / "buckets", progress)
        shutil.rmtree(elsewhere)
        digest, parts = write_parts(buckets, list(columns), partial)
        earlier = _standing(out)
        if earlier is not None and earlier.digest == digest:
            log.info("unchanged: the %d rows of %s are the snapshot of %s", earlier.rows, brought.source, earlier.taken_at)
            return earlier
        manifest = Manifest(
            source=brought.source,
            format=brought.format,
            rows=buckets.rows,
            columns=tuple(columns),
            source_columns=columns,
            parts=parts,
            digest=digest,
            taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        manifest.write(partial)
        swap(partial, out)
    counts = manifest.rows, len(columns), len(brought.files), brought.source, len(parts)
    log.info("%d rows and %d columns from %d files of %s in %d parts", *counts)
    return manifest


def look_at(root: Path, *, snapshot: SnapshotParams, environment: Mapping[str, str] | None = None) -> str:
    """Say in a few words what `snapshot.source` holds, without reading all of it; raises as `take_snapshot` does."""
    return source_of(snapshot).look(Asked(snapshot, root, os.environ if environment is None else environment))


def read_file(path: Path, snapshot: SnapshotParams) -> pd.DataFrame:
    """Return the rows of one file under the names that its columns have there, read as strictly; every cell is text or null.

    Raises:
        BadSource: the file is missing or cannot be read as a table; with every fault.
    """
    if not path.is_file():
        raise BadSource(f"{path}: no such file")
    brought = Brought({path: str(path)}, str(path), format_of([path]))
    found = _read_columns(brought, snapshot)
    return pd.DataFrame(list(_read_rows(brought, found, snapshot, found[path])), columns=found[path], dtype="str")


def _sort_rows(
    brought: Brought, snapshot: SnapshotParams, required: Sequence[str], folder: Path, progress: Callable[[int], None] | None
) -> tuple[dict[str, str], Buckets]:
    """Return the source's name of each canonical column, and all rows in buckets below `folder`."""
    found = _read_columns(brought, snapshot)
    first, called = next(iter(brought.files.items()))
    marks = [name for name in MARKS if name not in found[first] and any(name in each for each in found.values())]
    columns = name_columns(called, [*found[first], *marks], snapshot, required)
    buckets = Buckets(folder)
    for row in _read_rows(brought, found, snapshot, list(columns.values())):
        buckets.add(row)
        if progress is not None and buckets.rows % _REPORT_EVERY == 0:
            progress(buckets.rows)
    if not buckets.rows:
        raise BadSource(f"{', '.join(list(brought.files.values())[:3])}: a header and no rows; expected at least one row")
    return columns, buckets


def _read_columns(brought: Brought, snapshot: SnapshotParams) -> dict[Path, list[str]]:
    """Return the columns of every file, checked before the first row is kept."""
    found: dict[Path, list[str]] = {}
    first, first_called = next(iter(brought.files.items()))
    for path, called in brought.files.items():
        with readable(called):
            found[path] = _reader(path).read_columns(path, snapshot, Faults(called))
        same_columns(PurePath(first_called).name, found[first], called, found[path])
    return found


def _read_rows(
    brought: Brought, found: Mapping[Path, Sequence[str]], snapshot: SnapshotParams, wanted: Sequence[str]
) -> Iterator[list[str | None]]:
    """Yield the cells of every row, in the order of `wanted`."""
    for path, called in brought.files.items():
        columns, faults = found[path], Faults(called)
        places = [columns.index(name) if name in columns else None for name in wanted]
        with readable(called):
            for row in _reader(path).read_rows(path, snapshot, columns, faults):
                yield [None if place is None else row[place] for place in places]
        faults.settle()


def _reader(path: Path) -> ModuleType:
    return READERS[format_of([path])]


def _standing(out: Path) -> Manifest | None:
    """Return the manifest of the snapshot in `out`, if there is one and its parts are whole."""
    try:
        manifest = Manifest.read(out)
        for part in manifest.parts:
            verify(out, part)
    except NotThere:
        return None
    return manifest
