"""CSV and TSV, read strictly: every row has as many cells as the header, and a cell is the text that stands in the file."""

import csv
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from components.data.snapshot.decoding import codec, first_fault, refuse_other
from components.data.snapshot.features import ColumnType, with_names
from components.data.snapshot.read_errors import LONGEST_CELL, Faults, shown
from components.data.snapshot.settings import SnapshotParams

log = logging.getLogger(__name__)

_DELIMITERS = {",": "','", ";": "';'", "\t": '"\\t"', "|": "'|'"}
QUOTING: dict[str, dict[str, Any]] = {
    "double": {"strict": True},
    "backslash": {"strict": True, "doublequote": False, "escapechar": "\\"},
    "none": {"strict": True, "quoting": csv.QUOTE_NONE, "quotechar": None},
}
"""What `snapshot.quoting` says to the module `csv`."""
_MANY = 4  # lines in one row that are rows by themselves: too many for chance
_HINT = "if quotes are text in this file, set snapshot.quoting: none"


class _Record(NamedTuple):
    """A row with the lines that it is made of; `first` counts from 1."""

    first: int
    cells: list[str]
    lines: list[str]

    @property
    def where(self) -> str:
        """The lines, for a message."""
        return f"line {self.first}" if len(self.lines) == 1 else f"lines {self.first} to {self.first + len(self.lines) - 1}"


def read_columns(path: Path, snapshot: SnapshotParams, faults: Faults) -> dict[str, ColumnType]:
    """Return the header, after the whole file was found to be text."""
    refuse_other(path, faults)
    spot = first_fault(path, snapshot.encoding)
    if spot is not None:
        faults.add(f"{_row_at(path, spot.line, snapshot)}, byte {spot.byte}: {spot.what}")
        faults.settle()
    _refuse_other_delimiter(path, snapshot, faults)
    header = next((record.cells for record in _records(path, snapshot, faults)), [])
    times = Counter(header)
    if not any(name.strip() for name in header):
        faults.add("the file has no header; expected a first line with the names of the columns")
    for number, name in enumerate(header, start=1):
        if not name.strip():
            faults.add(f"column {number} has no name{_nameless(number, len(header))}")
    for name in sorted(name for name, count in times.items() if name.strip() and count > 1):
        places = [str(number) for number, other in enumerate(header, start=1) if other == name]
        more = f" and {len(places) - 10:,} more" if len(places) > 10 else ""
        faults.add(f"the header has {shown(name)} more than once (columns {', '.join(places[:10])}{more})")
    faults.settle()
    return {name: ColumnType() for name in header}


def read_rows(path: Path, snapshot: SnapshotParams, columns: Mapping[str, ColumnType], faults: Faults) -> Iterator[list[str | None]]:
    """Yield the rows below the header; empty lines are no rows."""
    width, names = len(columns), [column.names for column in columns.values()]
    named = any(each is not None for each in names)
    suspects = _Suspects(snapshot, width, _delimiter(path, snapshot))
    records = _records(path, snapshot, faults)
    suspects.look_for_quotes(next(records))
    for number, record in enumerate(records, start=1):
        suspects.look(record)
        row: list[str | None] = list(record.cells)
        if len(row) != width:
            hint = suspects.hint(record)
            faults.add(f"row {number} ({record.where}) has {len(row)} cells, the header has {width}{hint}")
            continue
        try:
            yield [with_names(cell, each) for cell, each in zip(row, names, strict=True)] if named else row
        except ValueError as error:
            faults.add(f"row {number} ({record.where}): {error}")
    suspects.settle(faults)


class _Suspects:
    """Rows over several lines that seem to be rows of their own, swallowed by a quote that is text."""

    def __init__(self, snapshot: SnapshotParams, width: int, delimiter: str) -> None:
        self._quoting, self._width, self._delimiter = snapshot.quoting, width, delimiter
        self._first: _Record | None = None
        self._found = 0
        self._likely = False  # one that was found is a row on each of its lines
        self._sure = False  # too many lines for chance
        self._plain = True  # every line of the file is a row by itself
        self._rows = self._lines = self._quoted = 0

    def look(self, record: _Record) -> None:
        """Take one row into account."""
        if self._quoting is not None:
            return
        self._rows += 1
        self._lines += len(record.lines)
        if len(record.lines) == 1:
            self._plain = self._plain and self._whole(record)
            self.look_for_quotes(record)
            return
        whole = self._whole(record)
        self._plain = self._plain and whole
        seems = whole or self._delimiter == "\t" or self._mostly_whole(record)
        if any((self._delimiter in cell or self._width == 1) and _breaks(cell) for cell in record.cells) and seems:
            self._first = self._first or record
            self._found += 1
            self._likely = self._likely or whole
            self._sure = self._sure or (whole and len(record.lines) >= _MANY)

    def look_for_quotes(self, record: _Record) -> None:
        """Count a row whose quotes are not text."""
        line = record.lines[0]
        if '"' in line and len(record.lines) == 1 and self._delimiter.join(record.cells) != line.rstrip("\r\n"):
            self._quoted += 1

    def hint(self, record: _Record) -> str:
        """Return what to do about a row with the wrong number of cells, where quotes may be the cause."""
        if self._quoting != "none" and any('"' in line for line in record.lines) and (len(record.lines) > 1 or self._whole(record)):
            return f"; {_HINT}"
        return ""

    def settle(self, faults: Faults) -> None:
        """Refuse the file, or warn, where rows were found."""
        if self._first is None:
            return
        more = f", and so in {self._found - 1:,} more rows" if self._found > 1 else ""
        said = (
            f"{self._first.where} are one row, since a cell begins with a quote that is closed in the last of them: its text holds line "
            f"ends{' and the delimiter' if self._width > 1 else ''}{more}; {self._lines:,} lines gave {self._rows:,} rows; {_HINT}"
        )
        right = "if the rows are right, set snapshot.quoting: double"
        likely = self._likely if self._delimiter == "\t" else self._plain
        if self._width > 1 and (self._sure or (likely and self._quoted < self._found)):
            faults.add(f"{said}; {right}")
        else:
            log.warning("%s: %s; %s", faults.called, said, right)

    def _whole(self, record: _Record) -> bool:
        """Return whether each line has as many cells as a row where quotes are text."""
        return all(line.count(self._delimiter) == self._width - 1 for line in record.lines)

    def _mostly_whole(self, record: _Record) -> bool:
        """Return whether many lines have, and few have not: a warning is worth it, though one of the rows would be a bad one."""
        whole = sum(line.count(self._delimiter) == self._width - 1 for line in record.lines)
        return whole >= max(_MANY, 0.75 * len(record.lines))


def _breaks(cell: str) -> bool:
    return "\n" in cell or "\r" in cell


class _Lines:
    """The lines of a file; `taken` are those since it was last emptied."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self.taken: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = next(self._file)
        self.taken.append(line)
        return line


def _records(path: Path, snapshot: SnapshotParams, faults: Faults, errors: str = "strict") -> Iterator[_Record]:
    """Yield each row with its lines; a quoting fault ends the file."""
    csv.field_size_limit(LONGEST_CELL)
    with path.open(encoding=codec(snapshot.encoding), errors=errors, newline="") as file:
        lines = _Lines(file)
        reader = csv.reader(lines, delimiter=_delimiter(path, snapshot), **QUOTING[snapshot.quoting or "double"])
        line = 1
        try:
            for row in reader:
                if row:
                    yield _Record(line, row, lines.taken)
                lines.taken = []
                line = reader.line_num + 1
        except csv.Error as error:
            faults.add(f"the row that starts on line {line} is not well-formed: {_malformed(str(error), lines.taken)}")


def _malformed(said: str, lines: list[str]) -> str:
    if "field limit" in said:
        return f"a cell has more than {LONGEST_CELL:,} characters, or a quote is opened and never closed; {_HINT}"
    what = "a quote is opened and never closed" if "end of data" in said else said
    if any('\\"' in line for line in lines):
        return f'{what}; if a quote within a cell is written \\", set snapshot.quoting: backslash'
    return f"{what}; {_HINT}"


def _nameless(number: int, width: int) -> str:
    """Return what a column without a name may be."""
    if number == 1:
        return "; where it is a row number that pandas wrote, write the file with index=False, or give the column a name"
    return "; where every line ends with a delimiter, remove it" if number == width else ""


def _delimiter(path: Path, snapshot: SnapshotParams) -> str:
    return snapshot.delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")


def _refuse_other_delimiter(path: Path, snapshot: SnapshotParams, faults: Faults) -> None:
    used = _delimiter(path, snapshot)
    with path.open(encoding=codec(snapshot.encoding), newline="") as file:
        first = file.readline(1 << 16)
    if first[:4].lower() == "sep=" and len(first.strip()) <= len("sep=") + 1:
        faults.add(f"the first line is {first.strip()}, which only Excel reads: remove it, and set snapshot.delimiter to what it names")
        faults.settle()
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
    for record in _records(path, snapshot, Faults(path), errors="replace"):
        if record.first > line:
            break
        row += 1
    return f"row {row} (line {line})" if row > 0 else f"the header (line {line})"
