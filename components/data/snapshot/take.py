"""Take a snapshot: read every file that the source brings strictly, order the rows by hash, and swap the result in at the end."""

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePath
from types import ModuleType
from typing import TypeVar

import pandas as pd

from components.artifacts.manifest import SnapshotManifest
from components.artifacts.rows import GIVEN_SPLIT, MARKS, in_order, verify
from components.core.atomic import aside, swap
from components.core.errors import BadSource, Cancelled, NotFound, Unavailable
from components.data.snapshot.bucket_sort import Buckets, write_parts
from components.data.snapshot.decoding import other_format
from components.data.snapshot.disk_space import check_room
from components.data.snapshot.features import ColumnType, of_cards
from components.data.snapshot.given_splits import split_of, splits_of_files
from components.data.snapshot.read_errors import LONGEST_CELL, Changed, Faults, listed, readable, shown
from components.data.snapshot.settings import SnapshotParams
from components.data.snapshot.source_changes import difference, file_stamps
from components.data.snapshot.sources import FetchedFiles, SourceRequest, source_of
from components.data.snapshot.tables import READERS, format_of, name_columns, same_columns, warn_of_types

log = logging.getLogger(__name__)

_REPORT_EVERY = 10_000  # rows
_FILE_NAME = "(the file's name)"  # what the manifest has as the source's column
_IDENTITY = ("id", "group", "label")
_POINTED = re.compile(r"(-?\d+)\.0+")

T = TypeVar("T")
Rows = Iterator[list[str | None]]


def take_snapshot(
    root: Path,
    out: Path,
    *,
    snapshot: SnapshotParams,
    required: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> SnapshotManifest:
    """Write the rows of `snapshot.source` into `out`; unchanged rows leave `out` as it is.

    Local paths are relative to `root`. `required` are the canonical columns that the task needs; `progress` is told the number of rows
    read so far; `environment` is where the addresses of databases stand (that of the process).

    Raises:
        BadParams: a setting does not fit the kind of source.
        BadSource: the source is missing or cannot be read as one table; with every fault of the first bad file.
        Unavailable: the source is out of reach, or the disk is full; `out` is untouched.
    """
    asked = SourceRequest(snapshot, root, os.environ if environment is None else environment)
    return _twice(lambda: _take(asked, out, required, progress))


def _take(asked: SourceRequest, out: Path, required: Sequence[str], progress: Callable[[int], None] | None) -> SnapshotManifest:
    source = source_of(asked.settings)
    with aside(out) as partial:
        elsewhere = partial / "brought"
        elsewhere.mkdir()
        brought = source.bring(asked, elsewhere)
        columns, buckets = _steadily(brought, lambda: _sort_rows(brought, asked.settings, required, partial / "buckets", progress))
        shutil.rmtree(elsewhere)
        digest, parts = write_parts(buckets, list(columns), partial)
        earlier = _standing(out)
        if earlier is not None and earlier.digest == digest:
            log.info("unchanged: the %d rows of %s are the snapshot of %s", earlier.rows, brought.source, earlier.taken_at)
            return earlier
        manifest = SnapshotManifest(
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


def _twice(read: Callable[[], T]) -> T:
    """Read a source, and once more where it changed meanwhile."""
    try:
        return read()
    except Changed as error:
        log.warning("%s; it is read once more", error)
        return read()


def _steadily(brought: FetchedFiles, read: Callable[[], T]) -> T:
    """Read files that stay the same meanwhile.

    Raises:
        Changed: they did not; what was wrong with them may come of that.
    """
    before = file_stamps(brought.files)
    try:
        found = read()
    except (Cancelled, Unavailable):
        raise
    except Exception as error:  # a reader may stumble in any way over a file that is another one by now
        if what := difference(before, brought.listed):
            raise Changed(_changed(what)) from error
        raise
    if what := difference(before, brought.listed):
        raise Changed(_changed(what))
    return found


def _changed(what: str) -> str:
    return f"{what}, so the rows would be of two versions; take the snapshot when nothing writes there, or write aside and rename"


def look_at(root: Path, *, snapshot: SnapshotParams, environment: Mapping[str, str] | None = None) -> str:
    """Say in a few words what `snapshot.source` holds, without reading all of it; raises as `take_snapshot` does."""
    return source_of(snapshot).look(SourceRequest(snapshot, root, os.environ if environment is None else environment))


def read_file(path: Path, snapshot: SnapshotParams) -> pd.DataFrame:
    """Return the rows of one file under the names that its columns have there, read as strictly; every cell is text or null.

    Raises:
        BadSource: the file is missing or cannot be read as a table; with every fault.
        Unavailable: it was changed while it was read, twice.
    """
    if not path.is_file():
        raise BadSource(f"{path}: {other_format(path) or 'no such file'}; expected a file")
    brought = FetchedFiles({path: str(path)}, str(path), format_of([path]))

    def read() -> pd.DataFrame:
        found = columns_of(brought, snapshot)
        wanted = {name: name for name in found[path]}
        return pd.DataFrame(list(_read_rows(brought, found, snapshot, wanted, {})), columns=list(wanted), dtype="str")

    return _twice(lambda: _steadily(brought, read))


def columns_of(brought: FetchedFiles, snapshot: SnapshotParams) -> dict[Path, dict[str, ColumnType]]:
    """Return the columns of every file, with the names of classes, checked before the first row is kept.

    Raises:
        BadSource: a file cannot be read, or two have other columns.
    """
    found: dict[Path, dict[str, ColumnType]] = {}
    first, first_called = next(iter(brought.files.items()))
    may_lack = {*MARKS, snapshot.split_column or GIVEN_SPLIT}
    for path, called in brought.files.items():
        with readable(called):
            found[path] = _reader(path).read_columns(path, snapshot, Faults(called))
        same_columns(PurePath(first_called).name, found[first], called, found[path], may_lack)
    warn_of_types({PurePath(called).name: found[path] for path, called in brought.files.items()})
    if snapshot.class_labels == "numbers":
        return {path: {name: replace(column, names=None) for name, column in columns.items()} for path, columns in found.items()}
    cards = of_cards(brought.cards, list(found[first]))
    named = {
        path: {name: replace(column, names=column.names or cards.get(name)) for name, column in columns.items()}
        for path, columns in found.items()
    }
    if classes := [name for name, column in named[first].items() if column.names]:
        log.info("the classes of %s have the names that the data set gives them", listed(classes))
    return named


def given_splits(brought: FetchedFiles, snapshot: SnapshotParams) -> dict[Path, str | None]:
    """Return the split of each file where the names of files give one; nothing where they do not."""
    if snapshot.split_column is not None or not snapshot.split_files:
        return {}
    found = dict(zip(brought.files, splits_of_files(list(brought.files.values())), strict=True))
    return found if any(found.values()) else {}


def _sort_rows(
    brought: FetchedFiles, snapshot: SnapshotParams, required: Sequence[str], folder: Path, progress: Callable[[int], None] | None
) -> tuple[dict[str, str], Buckets]:
    """Return the source's name of each canonical column, and all rows in buckets below `folder`."""
    found = columns_of(brought, snapshot)
    check_room(brought, snapshot, folder.parent)
    first, called = next(iter(brought.files.items()))
    known = dict.fromkeys(name for each in found.values() for name in each)
    columns = name_columns(called, [*found[first], *(name for name in known if name not in found[first])], snapshot, required)
    splits = {} if GIVEN_SPLIT in columns else given_splits(brought, snapshot)
    if splits:
        columns = {name: columns.get(name, _FILE_NAME) for name in in_order([*columns, GIVEN_SPLIT])}
        counts = {split: list(splits.values()).count(split) for split in dict.fromkeys(splits.values()) if split}
        log.info("the files give the split of their rows: %s", ", ".join(f"{count} of {split}" for split, count in counts.items()))
    elif "split" in columns:
        log.warning(
            "the column 'split' is kept as it is, and rows are split anew; snapshot.split_column: %s takes its splits", columns["split"]
        )
    buckets = Buckets(folder)
    for row in _read_rows(brought, found, snapshot, columns, splits):
        buckets.add(row)
        if progress is not None and buckets.rows % _REPORT_EVERY == 0:
            progress(buckets.rows)
    if not buckets.rows:
        raise BadSource(f"{', '.join(list(brought.files.values())[:3])}: a header and no rows; expected at least one row")
    return columns, buckets


def _read_rows(
    brought: FetchedFiles,
    found: Mapping[Path, Mapping[str, ColumnType]],
    snapshot: SnapshotParams,
    wanted: Mapping[str, str],
    splits: Mapping[Path, str | None],
) -> Rows:
    """Yield the cells of every row, in the order of `wanted`; `splits` are those that files give."""
    whole = _Whole(wanted) if brought.format in ("csv", "tsv") else None
    split = list(wanted).index(GIVEN_SPLIT) if GIVEN_SPLIT in wanted else None
    for path, called in brought.files.items():
        columns, faults = {name: place for place, name in enumerate(found[path])}, Faults(called)
        places = [columns.get(name) for name in wanted.values()]
        with readable(called):
            for number, row in enumerate(_reader(path).read_rows(path, snapshot, found[path], faults), start=1):
                cells = [None if place is None else row[place] for place in places]
                if long := [name for name, cell in zip(wanted, cells, strict=True) if cell is not None and len(cell) > LONGEST_CELL]:
                    faults.add(f"row {number}: the cell of {shown(long[0])} has more than {LONGEST_CELL:,} characters")
                if split is not None:
                    try:
                        cells[split] = splits[path] if splits else split_of(cells[split])
                    except ValueError as error:
                        faults.add(f"row {number}: {shown(wanted[GIVEN_SPLIT])}: {error}")
                yield cells if whole is None else whole.read(cells)
        faults.settle()
    if whole is not None:
        whole.tell()


class _Whole:
    """Whole numbers of CSV, which pandas writes as 7.0 where a cell of their column is missing.

    They are 7 in the columns that say who a row is and what it is labelled. In all others a cell is the text that stands in the file.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns
        self._identity = [place for place, name in enumerate(columns) if name in _IDENTITY]
        self._pointed: dict[int, str] = {}
        self._plain: set[int] = set()

    def read(self, cells: list[str | None]) -> list[str | None]:
        """Return the cells of a row, whole numbers written as such."""
        for place, cell in enumerate(cells):
            if cell and cell[-1] == "0" and "." in cell and (found := _POINTED.fullmatch(cell)):
                self._pointed.setdefault(place, cell)
                if place in self._identity:
                    cells[place] = found[1]
            elif cell and cell.isdecimal():
                self._plain.add(place)
        return cells

    def tell(self) -> None:
        """Warn of what was written so."""
        sources = list(self._columns.values())
        for place, cell in self._pointed.items():
            name = shown(sources[place])
            if place in self._identity:
                log.warning("the column %s has whole numbers with a point, as %s: they are read without it", name, cell)
            elif place in self._plain:
                log.warning(
                    "the column %s has whole numbers in two forms, with a point (%s) and without: they are different texts", name, cell
                )


def _reader(path: Path) -> ModuleType:
    return READERS[format_of([path])]


def _standing(out: Path) -> SnapshotManifest | None:
    """Return the manifest of the snapshot in `out`, if there is one and its parts are whole."""
    try:
        manifest = SnapshotManifest.read(out)
        for part in manifest.parts:
            verify(out, part)
    except NotFound:
        return None
    return manifest
