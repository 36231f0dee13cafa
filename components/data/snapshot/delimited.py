"""Read CSV and TSV strictly: every row has as many cells as the header, and every cell keeps its text."""

import csv
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice, takewhile
from pathlib import Path
from typing import IO, Any, NamedTuple

from components.core.errors import listed
from components.data.snapshot.decoding import check_file_format, codec_with_bom, first_decoding_fault
from components.data.snapshot.features import ColumnType, apply_class_names
from components.data.snapshot.read_errors import LONGEST_CELL, Faults, short_repr
from components.data.snapshot.settings import SnapshotParams

log = logging.getLogger(__name__)

_DELIMITERS = {",": "','", ";": "';'", "\t": '"\\t"', "|": "'|'"}
QUOTING: dict[str, dict[str, Any]] = {
    "double": {"strict": True},
    "backslash": {"strict": True, "doublequote": False, "escapechar": "\\"},
    "none": {"strict": True, "quoting": csv.QUOTE_NONE, "quotechar": None},
}
"""Arguments of `csv.reader` for each value of `snapshot.quoting`."""
_MANY = 4  # lines of one record that would each be a complete row: too many for chance
_MANY_ROWS = 100  # rows that show whether a column numbers them
_HINT = "if quotes are text in this file, set snapshot.quoting: none"


class _Record(NamedTuple):
    """A row with its source lines; `first` is the first line number, from 1."""

    first: int
    cells: list[str]
    lines: list[str]

    @property
    def where(self) -> str:
        """The line numbers, for a message."""
        return f"line {self.first}" if len(self.lines) == 1 else f"lines {self.first} to {self.first + len(self.lines) - 1}"


def read_columns(path: Path, snapshot: SnapshotParams, faults: Faults) -> dict[str, ColumnType]:
    """Return the header, after checking that the whole file can be decoded; without the row numbers that pandas writes."""
    check_file_format(path, faults)
    if fault := first_decoding_fault(path, snapshot.encoding):
        faults.refuse(f"{_row_at(path, fault[0], snapshot)}, {fault[1]}")
    _refuse_other_delimiter(path, snapshot, faults)
    records = _records(path, snapshot, faults)
    header = next((record.cells for record in records), [])
    if not snapshot.header:
        header = [f"column_{number}" for number in range(1, len(header) + 1)]
    elif _has_row_numbers(header, records):
        log.warning("%s: the first column has no name and numbers the rows, as pandas writes it: it is not read", faults.name)
        header = header[1:]
    counts = Counter(header)
    if not any(name.strip() for name in header):
        faults.add("the file has no header; expected a first line with the names of the columns")
    for number, name in enumerate(header, start=1):
        if not name.strip():
            faults.add(f"column {number} has no name{_nameless(number, len(header))}")
    for name in sorted(name for name, count in counts.items() if name.strip() and count > 1):
        numbers = [str(number) for number, column in enumerate(header, start=1) if column == name]
        faults.add(f"the header has {short_repr(name)} more than once (columns {listed(numbers, 10)})")
    faults.raise_if_any()
    return {name: ColumnType() for name in header}


def read_rows(path: Path, snapshot: SnapshotParams, columns: Mapping[str, ColumnType], faults: Faults) -> Iterator[list[str | None]]:
    """Yield the rows below the header; skip empty lines."""
    class_names = [column.names for column in columns.values()]
    has_classes = any(names is not None for names in class_names)
    records = _records(path, snapshot, faults)
    header = next(records) if snapshot.header else None
    skipped = len(header.cells) - len(columns) if header else 0  # 1 if the first column numbers the rows
    width = len(columns) + skipped
    quotes = _QuoteCheck(snapshot, width, _delimiter(path, snapshot))
    if header:
        quotes.count_quoted(header)
    for number, record in enumerate(records, start=1):
        quotes.add(record)
        if len(record.cells) != width:
            hint = quotes.hint(record)
            faults.add(f"row {number} ({record.where}) has {len(record.cells)} cells, the header has {width}{hint}")
            continue
        row: list[str | None] = list(record.cells[skipped:])
        try:
            yield [apply_class_names(cell, names) for cell, names in zip(row, class_names, strict=True)] if has_classes else row
        except ValueError as error:
            faults.add(f"row {number} ({record.where}): {error}")
    quotes.report(faults)


class _QuoteCheck:
    """Detects rows over several lines that are probably separate rows, joined by a quote that is text."""

    def __init__(self, snapshot: SnapshotParams, width: int, delimiter: str) -> None:
        self._quoting, self._width, self._delimiter = snapshot.quoting, width, delimiter
        self._first: _Record | None = None
        self._joined = 0
        self._likely = False  # in at least one joined row, every line would be a complete row
        self._certain = False  # too many lines for chance
        self._all_complete = True  # every line of the file would be a complete row
        self._rows = self._lines = self._quoted = 0

    def add(self, record: _Record) -> None:
        """Count one row."""
        if self._quoting is not None:
            return
        self._rows += 1
        self._lines += len(record.lines)
        lines, count = len(record.lines), self._complete_lines(record)
        complete = count == lines
        self._all_complete = self._all_complete and complete
        if lines == 1:
            self.count_quoted(record)
            return
        # Most lines are complete rows: worth a warning, although one row may be malformed.
        suspicious = complete or self._delimiter == "\t" or count >= max(_MANY, 0.75 * lines)
        if suspicious and any((self._delimiter in cell or self._width == 1) and ("\n" in cell or "\r" in cell) for cell in record.cells):
            self._first = self._first or record
            self._joined += 1
            self._likely = self._likely or complete
            self._certain = self._certain or (complete and lines >= _MANY)

    def count_quoted(self, record: _Record) -> None:
        """Count a row whose quotes delimit cells."""
        line = record.lines[0]
        if '"' in line and len(record.lines) == 1 and self._delimiter.join(record.cells) != line.rstrip("\r\n"):
            self._quoted += 1

    def hint(self, record: _Record) -> str:
        """Return a hint for a row with the wrong number of cells if quotes may be the cause."""
        quoted = self._quoting != "none" and any('"' in line for line in record.lines)
        return f"; {_HINT}" if quoted and (len(record.lines) > 1 or self._complete_lines(record)) else ""

    def report(self, faults: Faults) -> None:
        """Refuse the file or log a warning if joined rows were detected."""
        if self._first is None:
            return
        more = f", and {self._joined - 1:,} more rows like this" if self._joined > 1 else ""
        message = (
            f"{self._first.where} are one row, because a cell starts with a quote that is closed in the last of these lines: its text "
            f"contains line ends{' and the delimiter' if self._width > 1 else ''}{more}; {self._lines:,} lines gave {self._rows:,} rows; "
            f"{_HINT}"
        )
        fix = "if the rows are right, set snapshot.quoting: double"
        likely = self._likely if self._delimiter == "\t" else self._all_complete
        if self._width > 1 and (self._certain or (likely and self._quoted < self._joined)):
            faults.add(f"{message}; {fix}")
        else:
            log.warning("%s: %s; %s", faults.name, message, fix)

    def _complete_lines(self, record: _Record) -> int:
        """Return how many lines have as many cells as a row, counting quotes as text."""
        return sum(line.count(self._delimiter) == self._width - 1 for line in record.lines)


def _recorded(file: IO[str], taken: list[str]) -> Iterator[str]:
    for line in file:
        taken.append(line)
        yield line


def _records(path: Path, snapshot: SnapshotParams, faults: Faults, errors: str = "strict") -> Iterator[_Record]:
    """Yield each row with its lines; a quoting error ends the file."""
    csv.field_size_limit(LONGEST_CELL)
    with path.open(encoding=codec_with_bom(snapshot.encoding), errors=errors, newline="") as file:
        taken: list[str] = []  # the lines of the current row
        before = 1 if _named_delimiter(path, snapshot) else 0
        if before:
            file.readline()
        reader = csv.reader(_recorded(file, taken), delimiter=_delimiter(path, snapshot), **QUOTING[snapshot.quoting or "double"])
        line = 1 + before
        try:
            for row in reader:
                if row:
                    yield _Record(line, row, list(taken))
                taken.clear()
                line = reader.line_num + 1 + before
        except csv.Error as error:
            faults.add(f"the row that starts on line {line} is not well-formed: {_csv_fault(str(error), taken)}")


def _csv_fault(message: str, lines: list[str]) -> str:
    if "field limit" in message:
        return f"a cell has more than {LONGEST_CELL:,} characters, or a quote is opened and never closed; {_HINT}"
    fault = "a quote is opened and never closed" if "end of data" in message else message
    if any('\\"' in line for line in lines):
        return f'{fault}; if a quote within a cell is written \\", set snapshot.quoting: backslash'
    return f"{fault}; {_HINT}"


def _nameless(number: int, width: int) -> str:
    if number == 1:
        return "; it does not number the rows, as pandas writes them: give the column a name"
    return "; if every line ends with a delimiter, remove it" if number == width else ""


def _delimiter(path: Path, snapshot: SnapshotParams) -> str:
    return snapshot.delimiter or _named_delimiter(path, snapshot) or ("\t" if path.suffix.lower() == ".tsv" else ",")


def _named_delimiter(path: Path, snapshot: SnapshotParams) -> str | None:
    """Return the delimiter that a first line such as `sep=;` names, which Excel writes and reads."""
    with path.open(encoding=codec_with_bom(snapshot.encoding), errors="replace", newline="") as file:
        line = file.readline(len("sep=;\r\n")).rstrip("\r\n")
    return line[-1] if line[:-1].lower() == "sep=" and line[-1] != '"' else None


def _has_row_numbers(header: list[str], records: Iterator[_Record]) -> bool:
    """Return whether only the first column has no name, and its first values are different whole numbers."""
    if len(header) < 2 or header[0].strip() or not all(name.strip() for name in header[1:]):
        return False
    numbers = [record.cells[0] for record in islice(records, _MANY_ROWS)]
    return bool(numbers) and all(map(str.isdecimal, numbers)) and len(set(numbers)) == len(numbers)


def _refuse_other_delimiter(path: Path, snapshot: SnapshotParams, faults: Faults) -> None:
    used = _delimiter(path, snapshot)
    with path.open(encoding=codec_with_bom(snapshot.encoding), newline="") as file:
        first = file.readline(1 << 16)
        if _named_delimiter(path, snapshot):
            first = file.readline(1 << 16)
    widths = {delimiter: _width(first, delimiter) for delimiter in {*_DELIMITERS, used}}
    best = max(_DELIMITERS, key=lambda delimiter: widths[delimiter])
    if widths[used] <= 1 < widths[best]:
        faults.refuse(
            f"the header is one column when split at {_DELIMITERS.get(used, repr(used))}, and {widths[best]} columns at "
            f"{_DELIMITERS[best]}: set snapshot.delimiter: {_DELIMITERS[best]}"
        )


def _width(line: str, delimiter: str) -> int:
    try:
        return max((len(row) for row in csv.reader([line], delimiter=delimiter, strict=True)), default=0)
    except csv.Error:
        return 0


def _row_at(path: Path, line: int, snapshot: SnapshotParams) -> str:
    """Return which row contains a line: with line ends inside quotes, row and line numbers differ."""
    records = _records(path, snapshot, Faults(path), errors="replace")
    row = sum(1 for _ in takewhile(lambda record: record.first <= line, records)) - snapshot.header
    return f"row {row} (line {line})" if row > 0 else f"the header (line {line})"
