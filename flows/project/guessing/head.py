"""Read the first rows of a data file with the settings that fit it: encoding, delimiter, quotes and header."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from components.core.errors import BadSource
from components.data.snapshot.decoding import first_decoding_fault
from components.data.snapshot.read_errors import Faults
from components.data.snapshot.settings import SnapshotParams
from components.data.snapshot.sources import FetchedFiles, SourceRequest, files
from components.data.snapshot.tables import READERS, format_of
from components.data.snapshot.take import read_all_columns, splits_by_file
from flows.project.guessing.values import LABEL_NAMES, key, word_counts

SAMPLE_ROWS = 5_000
_TABLES = ("csv", "tsv")
_LATIN = "cp1252"
_LONG_NAME = 6  # words that no column name has


@dataclass(frozen=True)
class Head:
    """The first rows as text, the settings that read them, whether they are all, and whether the files' names give splits."""

    frame: pd.DataFrame
    settings: SnapshotParams
    complete: bool
    split_files: bool


def read_head(data: Path) -> Head:
    """Return the first rows of a file or folder.

    Raises:
        BadSource: no settings can read the rows.
    """
    source = SnapshotParams(source=str(data))
    fetched = files.fetch(SourceRequest(source, Path.cwd(), {}), Path())
    splits = splits_by_file(fetched, source)
    firsts = list({splits.get(path): path for path in reversed(list(fetched.files))}.values())
    sample = replace(fetched, files={path: fetched.files[path] for path in firsts[::-1]})
    error: BadSource | None = None
    for settings in _ways(data, fetched.format, sample):
        try:
            frame, complete = _first_rows(sample, settings)
            if fetched.format in _TABLES and _header_is_a_row(frame):
                settings = settings.model_copy(update={"header": False})
                frame, complete = _first_rows(sample, settings)
        except BadSource as fault:
            error = error or fault
            continue
        if len(frame):
            return Head(frame, settings, complete and len(sample.files) == len(fetched.files), bool(splits))
    raise error or BadSource(f"{data}: the file has a header but no rows; expected at least one row")


def _ways(data: Path, file_format: str, sample: FetchedFiles) -> Iterator[SnapshotParams]:
    """Yield the settings to try, the usual ones first."""
    encoding = "utf-8" if file_format == "parquet" else _encoding(next(iter(sample.files)))
    if file_format not in _TABLES:
        yield SnapshotParams(source=str(data), encoding=encoding)
        return
    delimiters = (None, ";", "\t", "|") if file_format == "csv" else (None,)
    escaped = any(b'\\"' in _head(path) for path in sample.files)
    for quoting in (None, "backslash", "none") if escaped else (None, "none", "backslash"):
        for delimiter in delimiters:
            yield SnapshotParams(source=str(data), encoding=encoding, delimiter=delimiter, quoting=quoting)


def _encoding(path: Path) -> str:
    """Return utf-8, utf-16 with a byte-order mark, or cp1252 if the file is a Latin text in it; utf-8 if it is neither."""
    if first_decoding_fault(path, "utf-8") is None:
        return "utf-8"
    head = _head(path)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if first_decoding_fault(path, _LATIN) is not None:
        return "utf-8"
    text = head.decode(_LATIN, errors="replace")
    # In a Latin text, accented letters and typographic quotes stand alone between ASCII characters; other scripts make long runs.
    runs = re.findall(r"[^\x00-\x7f]+", text)
    return _LATIN if runs and sum(len(run) <= 2 for run in runs) > 0.9 * len(runs) else "utf-8"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1 << 20)


def _first_rows(fetched: FetchedFiles, settings: SnapshotParams) -> tuple[pd.DataFrame, bool]:
    """Return the first rows of all files and whether they are all rows; raise BadSource if `settings` cannot read them."""
    columns_by_file, frames, complete = read_all_columns(fetched, settings), list[pd.DataFrame](), True
    most = SAMPLE_ROWS // len(columns_by_file)
    for path, columns in columns_by_file.items():
        faults = Faults(fetched.files[path])
        rows = READERS[format_of([path])].read_rows(path, settings, columns, faults)
        frames.append(pd.DataFrame(list(itertools.islice(rows, most)), columns=list(columns), dtype="str"))
        complete = complete and next(rows, None) is None
        faults.raise_if_any()
    return pd.concat(frames, ignore_index=True), complete


def _header_is_a_row(frame: pd.DataFrame) -> bool:
    """Return whether the names of the columns look like values: a text, a label of other rows, or a number among numbers."""
    names = [str(name) for name in frame.columns]
    if len(frame) < 2 or {key(name) for name in names} & {"text", "id", *LABEL_NAMES}:
        return False
    numbers = [name for name in names if _is_number(name)]
    numbered = all(" " in name or name in numbers for name in names) and any(frame[name].dropna().map(_is_number).all() for name in numbers)
    return numbered or any(_is_a_value(name, frame[name].dropna()) for name in names)


def _is_number(text: str) -> bool:
    return text.strip().replace(".", "", 1).isdecimal()


def _is_a_value(name: str, cells: "pd.Series[str]") -> bool:
    """Return whether a name is one of a few labels, or a long text."""
    if cells.nunique() <= max(2, len(cells) // 3):
        return bool((cells == name).any())
    return int(word_counts(pd.Series([name])).iloc[0]) >= _LONG_NAME and float(word_counts(cells).mean()) >= 2
