"""Take a snapshot: read the files of the source strictly, order the rows by hash, and replace the previous snapshot at the end."""

import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePath
from types import ModuleType

import pandas as pd

from components.artifacts.manifest import SnapshotManifest
from components.artifacts.rows import GIVEN_SPLIT, MARKS, in_order, verify
from components.core.atomic import aside, swap
from components.core.errors import BadSource, NotFound, Unavailable
from components.data.snapshot import parquet
from components.data.snapshot.bucket_sort import Buckets, write_parts
from components.data.snapshot.cells import in_utc
from components.data.snapshot.decoding import special_file_type
from components.data.snapshot.features import ColumnType, class_names_from_cards
from components.data.snapshot.given_splits import split_of, splits_of_files
from components.data.snapshot.read_errors import LONGEST_CELL, Faults, readable, short_list, short_repr
from components.data.snapshot.settings import SnapshotParams
from components.data.snapshot.source_changes import read_twice, read_unchanged
from components.data.snapshot.sources import FetchedFiles, SourceRequest, source_of
from components.data.snapshot.tables import READERS, format_of, name_columns, same_columns, warn_of_types

log = logging.getLogger(__name__)

_REPORT_EVERY = 10_000  # rows
_SMALL = 256 << 20  # bytes that a Parquet file of any size may expand to
_FILE_NAME = "(the file's name)"  # the source column of `given_split` in the manifest
_IDENTITY = ("id", "group", "label")
_WITH_POINT = re.compile(r"(-?\d+)\.0+")


def take_snapshot(
    root: Path,
    out: Path,
    *,
    snapshot: SnapshotParams,
    required: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> SnapshotManifest:
    """Write the rows of `snapshot.source` to `out`; unchanged rows leave `out` untouched.

    Local paths are relative to `root`. `required` are the canonical columns of the task. `progress` is called with the number of rows
    read so far. `environment` contains database addresses and keys; it defaults to that of the process.

    Raises:
        BadParams: a setting does not fit the source.
        BadSource: the source is missing or cannot be read as one table; lists every fault of the first bad file.
        Unavailable: the source is unreachable, or the disk is full; `out` is untouched.
    """
    request = SourceRequest(snapshot, root, os.environ if environment is None else environment)
    return read_twice(lambda: _take(request, out, required, progress))


def _take(request: SourceRequest, out: Path, required: Sequence[str], progress: Callable[[int], None] | None) -> SnapshotManifest:
    source = source_of(request.settings)
    with aside(out) as partial:
        downloads = partial / "fetched"
        downloads.mkdir()
        fetched = source.fetch(request, downloads)
        columns, buckets = read_unchanged(
            fetched.files, fetched.relist, lambda: _sort_rows(fetched, request.settings, required, partial / "buckets", progress)
        )
        shutil.rmtree(downloads)
        digest, parts = write_parts(buckets, list(columns), partial)
        existing = _existing_manifest(out)
        if existing is not None and existing.digest == digest:
            log.info("unchanged: %s still has the %d rows of the snapshot of %s", fetched.source, existing.rows, existing.taken_at)
            return existing
        manifest = SnapshotManifest(
            source=fetched.source,
            format=fetched.format,
            rows=buckets.rows,
            columns=tuple(columns),
            source_columns=columns,
            parts=parts,
            digest=digest,
            taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        manifest.write(partial)
        swap(partial, out)
    counts = manifest.rows, len(columns), len(fetched.files), fetched.source, len(parts)
    log.info("%d rows and %d columns from %d files of %s in %d parts", *counts)
    return manifest


def describe_source(root: Path, *, snapshot: SnapshotParams, environment: Mapping[str, str] | None = None) -> str:
    """Return a short description of `snapshot.source` without reading all of it; raises as `take_snapshot` does."""
    return source_of(snapshot).describe(SourceRequest(snapshot, root, os.environ if environment is None else environment))


def read_file(path: Path, snapshot: SnapshotParams) -> pd.DataFrame:
    """Return the rows of one file with its own column names; every cell is text or null.

    Raises:
        BadSource: the file is missing or cannot be read as a table; lists every fault.
        Unavailable: the file changed during both attempts to read it.
    """
    if not path.is_file():
        raise BadSource(f"{path}: {special_file_type(path) or 'no such file'}; expected a file")
    fetched = FetchedFiles({path: str(path)}, str(path), format_of([path]))

    def read() -> pd.DataFrame:
        columns = read_all_columns(fetched, snapshot)
        names = {name: name for name in columns[path]}
        return pd.DataFrame(list(_read_rows(fetched, columns, snapshot, names, {})), columns=list(names), dtype="str")

    return read_twice(lambda: read_unchanged(fetched.files, fetched.relist, read))


def read_all_columns(fetched: FetchedFiles, snapshot: SnapshotParams) -> dict[Path, dict[str, ColumnType]]:
    """Return the columns of every file with their class names.

    Raises:
        BadSource: a file cannot be read, or two files have different columns.
    """
    columns: dict[Path, dict[str, ColumnType]] = {}
    first, first_name = next(iter(fetched.files.items()))
    optional = {*MARKS, snapshot.split_column or GIVEN_SPLIT}
    for path, name in fetched.files.items():
        with readable(name):
            columns[path] = _reader(path).read_columns(path, snapshot, Faults(name))
        same_columns(PurePath(first_name).name, columns[first], name, columns[path], optional)
    warn_of_types({PurePath(name).name: columns[path] for path, name in fetched.files.items()})
    numbers = snapshot.class_labels == "numbers"
    from_cards = {} if numbers else class_names_from_cards(fetched.cards, list(columns[first]))
    named = {
        path: {
            name: replace(column, names=None if numbers else column.names or from_cards.get(name)) for name, column in file_columns.items()
        }
        for path, file_columns in columns.items()
    }
    if classes := [name for name, column in named[first].items() if column.names]:
        log.info("replaced the class numbers of %s by the dataset's class names", short_list(classes))
    return named


def splits_by_file(fetched: FetchedFiles, snapshot: SnapshotParams) -> dict[Path, str | None]:
    """Return the split of each file by its name; empty if the names contain no splits."""
    if snapshot.split_column is not None or not snapshot.split_files:
        return {}
    splits = dict(zip(fetched.files, splits_of_files(list(fetched.files.values())), strict=True))
    return splits if any(splits.values()) else {}


def _sort_rows(
    fetched: FetchedFiles, snapshot: SnapshotParams, required: Sequence[str], folder: Path, progress: Callable[[int], None] | None
) -> tuple[dict[str, str], Buckets]:
    """Return the source's name of each canonical column, and all rows in buckets below `folder`."""
    by_file = read_all_columns(fetched, snapshot)
    _check_disk_space(fetched, snapshot, folder.parent)
    first, first_name = next(iter(fetched.files.items()))
    present = list(dict.fromkeys([*by_file[first], *(name for columns in by_file.values() for name in columns)]))
    columns = name_columns(first_name, present, snapshot, required)
    splits = {} if GIVEN_SPLIT in columns else splits_by_file(fetched, snapshot)
    if splits:
        columns = {name: columns.get(name, _FILE_NAME) for name in in_order([*columns, GIVEN_SPLIT])}
        counts = {split: list(splits.values()).count(split) for split in dict.fromkeys(splits.values()) if split}
        log.info("using the splits of the files: %s", ", ".join(f"{count} of {split}" for split, count in counts.items()))
    elif "split" in columns:
        log.warning(
            "the column 'split' is kept but not used, and rows get new splits; set snapshot.split_column: %s to use its splits",
            columns["split"],
        )
    buckets = Buckets(folder)
    for row in _read_rows(fetched, by_file, snapshot, columns, splits):
        buckets.add(row)
        if progress is not None and buckets.rows % _REPORT_EVERY == 0:
            progress(buckets.rows)
    if not buckets.rows:
        raise BadSource(f"{', '.join(list(fetched.files.values())[:3])}: a header and no rows; expected at least one row")
    return columns, buckets


def _check_disk_space(fetched: FetchedFiles, snapshot: SnapshotParams, folder: Path) -> None:
    """Check from the metadata that the rows of all files fit into `folder`, and that no Parquet file expands beyond `max_growth`."""
    free, needed = shutil.disk_usage(folder).free, 0
    for path, name in fetched.files.items():
        size = path.stat().st_size
        if _reader(path) is not parquet:
            needed += size // 2  # UTF-16 text is half as long in UTF-8
            continue
        limit = max(_SMALL, size * snapshot.max_growth)
        user_file = fetched.format == "parquet"  # the rows of a database are in a file that Retune wrote
        text = parquet.text_bytes(path, min(limit, free) if user_file else free)
        if user_file and text > limit:
            raise BadSource(
                f"{name}: {size:,} bytes expand to more than {limit / 2**20:,.0f} MiB of rows; expected at most {snapshot.max_growth:,} "
                "times the file's size. If that is right, raise snapshot.max_growth"
            )
        needed += text
    if needed > free:
        sizes = f"need at least {needed / 2**20:,.0f} MiB, but only {free / 2**20:,.0f} MiB are free in {folder.parent}"
        raise Unavailable(f"the rows of {fetched.source} {sizes}")


def _read_rows(
    fetched: FetchedFiles,
    by_file: Mapping[Path, Mapping[str, ColumnType]],
    snapshot: SnapshotParams,
    columns: Mapping[str, str],
    splits: Mapping[Path, str | None],
) -> Iterator[list[str | None]]:
    """Yield the cells of every row in the order of `columns`; `splits` are the splits of the files, if they have any."""
    whole_numbers = _WholeNumbers(columns) if fetched.format in ("csv", "tsv") else None
    split = list(columns).index(GIVEN_SPLIT) if GIVEN_SPLIT in columns else None
    for path, file in fetched.files.items():
        present, faults = {name: index for index, name in enumerate(by_file[path])}, Faults(file)
        indexes = [present.get(name) for name in columns.values()]
        with readable(file):
            for number, row in enumerate(_reader(path).read_rows(path, snapshot, by_file[path], faults), start=1):
                cells = [None if index is None or row[index] is None else in_utc(row[index]) for index in indexes]
                if long := [name for name, cell in zip(columns, cells, strict=True) if cell is not None and len(cell) > LONGEST_CELL]:
                    faults.add(f"row {number}: the cell of {short_repr(long[0])} has more than {LONGEST_CELL:,} characters")
                if split is not None:
                    try:
                        cells[split] = splits[path] if splits else split_of(cells[split])
                    except ValueError as error:
                        faults.add(f"row {number}: {short_repr(columns[GIVEN_SPLIT])}: {error}")
                yield cells if whole_numbers is None else whole_numbers.normalise(cells)
        faults.raise_if_any()
    if whole_numbers is not None:
        whole_numbers.warn()


class _WholeNumbers:
    """Whole numbers in CSV, which pandas writes as 7.0 if a cell of their column is missing.

    They become 7 in the columns that identify or label a row. All other cells keep their text.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns
        self._identity = [index for index, name in enumerate(columns) if name in _IDENTITY]
        self._with_point: dict[int, str] = {}
        self._plain: set[int] = set()

    def normalise(self, cells: list[str | None]) -> list[str | None]:
        """Return the cells of a row without decimal points in identity columns."""
        for index, cell in enumerate(cells):
            if cell and cell[-1] == "0" and "." in cell and (match := _WITH_POINT.fullmatch(cell)):
                self._with_point.setdefault(index, cell)
                if index in self._identity:
                    cells[index] = match[1]
            elif cell and cell.isdecimal():
                self._plain.add(index)
        return cells

    def warn(self) -> None:
        """Log a warning for each column with such numbers."""
        sources = list(self._columns.values())
        for index, cell in self._with_point.items():
            name = short_repr(sources[index])
            if index in self._identity:
                log.warning("the column %s has whole numbers with a decimal point, such as %s: the point is removed", name, cell)
            elif index in self._plain:
                log.warning("the column %s has whole numbers with a decimal point (%s) and without: they stay different texts", name, cell)


def _reader(path: Path) -> ModuleType:
    return READERS[format_of([path])]


def _existing_manifest(out: Path) -> SnapshotManifest | None:
    """Return the manifest of the snapshot in `out`; None if it is missing or a part is damaged."""
    try:
        manifest = SnapshotManifest.read(out)
        for part in manifest.parts:
            verify(out, part)
    except NotFound:
        return None
    return manifest
