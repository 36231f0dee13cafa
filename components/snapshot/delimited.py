"""CSV and TSV, read strictly: every row has as many cells as the header, and a cell is the text that stands in the file."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.snapshot.decoding import codec, first_fault, refuse_empty
from components.snapshot.faults import Faults
from components.snapshot.settings import SnapshotParams

_DELIMITERS = {",": "','", ";": "';'", "\t": '"\\t"', "|": "'|'"}
_LONGEST_CELL = 1 << 26  # characters; a quote that is never closed ends here at the latest


def read_columns(path: Path, snapshot: SnapshotParams, faults: Faults) -> list[str]:
    """Return the header, after the whole file was found to be text."""
    refuse_empty(path, faults)
    spot = first_fault(path, snapshot.encoding)
    if spot is not None:
        faults.add(f"{_row_at(path, spot.line, snapshot)}, byte {spot.byte}: {spot.what}")
        faults.settle()
    _refuse_other_delimiter(path, snapshot, faults)
    header = next((row for _, row in _cells(path, snapshot, faults)), [])
    if not any(name.strip() for name in header):
        faults.add("the file has no header; expected a first line with the names of the columns")
    for number, name in enumerate(header, start=1):
        if not name.strip():
            faults.add(f"column {number} has no name")
    for name in sorted({name for name in header if name.strip() and header.count(name) > 1}):
        places = ", ".join(str(number) for number, other in enumerate(header, start=1) if other == name)
        faults.add(f"the header has {name!r} more than once (columns {places})")
    faults.settle()
    return header


def read_rows(path: Path, snapshot: SnapshotParams, columns: Sequence[str], faults: Faults) -> Iterator[Sequence[str | None]]:
    """Yield the rows below the header; empty lines are no rows."""
    width = len(columns)
    rows = _cells(path, snapshot, faults)
    next(rows)
    for number, (line, row) in enumerate(rows, start=1):
        if len(row) == width:
            yield row
        else:
            faults.add(f"row {number} (line {line}) has {len(row)} cells, the header has {width}")


def _cells(path: Path, snapshot: SnapshotParams, faults: Faults, errors: str = "strict") -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the line that it starts on; a quoting fault ends the file."""
    csv.field_size_limit(_LONGEST_CELL)
    with path.open(encoding=codec(snapshot.encoding), errors=errors, newline="") as file:
        reader = csv.reader(file, delimiter=_delimiter(path, snapshot), strict=True)
        line = 1
        try:
            for row in reader:
                if row:
                    yield line, row
                line = reader.line_num + 1
        except csv.Error as error:
            what = "a quote is opened and never closed" if "end of data" in str(error) or "field limit" in str(error) else str(error)
            faults.add(f"the row that starts on line {line} is not well-formed: {what}")


def _delimiter(path: Path, snapshot: SnapshotParams) -> str:
    return snapshot.delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")


def _refuse_other_delimiter(path: Path, snapshot: SnapshotParams, faults: Faults) -> None:
    used = _delimiter(path, snapshot)
    with path.open(encoding=codec(snapshot.encoding), newline="") as file:
        first = file.readline(1 << 16)
    widths = {delimiter: _width(first, delimiter) for delimiter in {*_DELIMITERS, used}}
    best = max(_DELIMITERS, key=lambda delimiter: widths[delimiter])
    if widths[used] <= 1 < widths[best]:
        faults.add(
            f"the header is one column when it is split at {_DELIMITERS.get(used, repr(used))}, and {widths[best]} columns at "
            f"{_DELIMITERS[best]}: set snapshot.delimiter: {_DELIMITERS[best]}"
        )
        faults.settle()


def _width(line: str, delimiter: str) -> int:
    try:
        return max((len(row) for row in csv.reader([line], delimiter=delimiter, strict=True)), default=0)
    except csv.Error:
        return 0


def _row_at(path: Path, line: int, snapshot: SnapshotParams) -> str:
    """Say which row holds a line: with line ends inside quotes the two numbers differ."""
    row = -1
    for start, _ in _cells(path, snapshot, Faults(path), errors="replace"):
        if start > line:
            break
        row += 1
    return f"row {row} (line {line})" if row > 0 else f"the header (line {line})"
