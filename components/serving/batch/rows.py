"""Rows of a scoring: select the inputs, check the rows, split them into parts, and add the answers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from components.core.errors import BadData, BadInput, BadSource
from components.core.section import did_you_mean
from components.data.snapshot.cells import as_text
from components.data.snapshot.read_errors import short_list
from components.model import tasks
from components.serving.batch.files import Files, Piece
from components.serving.batch.records import OnBadRow

NUMBER = "row_number"
"""The number of a row in the whole input, from 1."""
QUARANTINE = pa.schema(
    [(NUMBER, pa.int64()), ("quarantine_reason", pa.string()), ("quarantine_source", pa.string()), ("quarantine_row", pa.int64())]
)
ANSWERS = {
    "label": pa.string(),
    "probability": pa.float64(),
    "probabilities": pa.map_(pa.string(), pa.float64()),
    "answer": pa.string(),
}
SHOWN = 20  # maximum number of bad rows in a message


@dataclass(frozen=True)
class PartRows:
    """The rows of a part: `good` rows with their numbers and input `texts`, and `bad` rows in the format of the quarantine."""

    numbers: Sequence[int]
    good: pa.Table
    texts: pd.DataFrame
    bad: pa.Table

    @property
    def rows(self) -> int:
        """The number of rows of the input in the part."""
        return int(self.good.num_rows + self.bad.num_rows)


def input_columns(task: tasks.Task, source: Files, columns: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """Return the column of each task input: from `columns`, from `defaults` if that column exists, else the input's own name.

    Raises:
        BadInput: a required column is missing, or `columns` contains an unknown input.
    """
    if unknown := sorted(set(columns) - set(task.inputs)):
        raise BadInput(f"the version has the input{'s' * (len(task.inputs) > 1)} {', '.join(task.inputs)}, not {unknown[0]!r}")
    existing = list(source.schema.names)
    named = {name: columns.get(name) or (defaults[name] if defaults.get(name) in existing else name) for name in task.inputs}
    if missing := [column for column in named.values() if column not in existing]:
        hint = did_you_mean(missing[0], existing)
        expected = f"the column{'s' * (len(named) > 1)} {', '.join(map(repr, named.values()))}"
        raise BadInput(
            f"{source.name}: expected {expected}, found {short_list(existing)}{hint}; "
            f"if a column has another name, pass --column {task.inputs[0]}=NAME"
        )
    return named


def answer_columns(task: tasks.Task, prefix: str) -> dict[str, str]:
    """Return the column of each answer."""
    answers = ("label", "probability", "probabilities") if task.classes else ("answer", "probabilities") if task.scored else ("answer",)
    return {name: prefix + name for name in answers}


def check_added_columns(source: Files, added: Iterable[str]) -> None:
    """Check that the `added` columns do not exist yet; raise BadInput otherwise."""
    if taken := [name for name in added if name in source.schema.names]:
        fix = "rename it" if taken[0] in QUARANTINE.names else "rename it, or add a prefix to the answers: --prefix scored_"
        raise BadInput(f"{source.name} already has the column {taken[0]!r}, which would be added; {fix}")


def check_rows(source: Files, inputs: Mapping[str, str], on_bad_row: OnBadRow) -> int:
    """Check all rows, and return their number.

    Raises:
        BadSource: there are no rows, or a file is malformed.
        BadData: a row cannot be scored and `on_bad_row` is "error", or no row can be scored.
    """
    rows, bad, shown = 0, 0, list[str]()
    for piece in source.pieces(inputs):
        faults = row_faults(piece)
        rows, bad = rows + len(piece), bad + len(faults)
        shown += [f"{piece.source}: row {piece.first + index}: {fault}" for index, fault in sorted(faults.items())[: SHOWN - len(shown)]]
    if not rows:
        raise BadSource(f"{source.name} has no rows; expected at least one")
    if bad and (on_bad_row == "error" or bad == rows):
        hint = "" if bad == rows else "; --on-bad-row quarantine sets them aside"
        more = [f"and {bad - len(shown):,} more"] if bad > len(shown) else []
        raise BadData("\n".join([f"{bad:,} of {rows:,} rows cannot be scored{hint}", *shown, *more]))
    return rows


def row_faults(piece: Piece) -> dict[int, str]:
    """Return why rows cannot be scored, by their index in the piece; lists and objects are accepted as JSON text, like in a snapshot."""
    faults: dict[int, str] = {}
    for name, cells in piece.cells.items():
        for index, cell in enumerate(cells):
            if not isinstance(cell, str | list | dict):
                faults.setdefault(index, f"{name!r} is missing" if cell is None else f"{name!r} is {_type_name(cell)}, expected text")
    return faults


def _type_name(cell: object) -> str:
    if isinstance(cell, bool):
        return "true or false"
    return "a number" if isinstance(cell, int | float) else f"of the type {type(cell).__name__}"


def split_rows(pieces: Iterator[Piece], rows: int, skip: int) -> Iterator[PartRows]:
    """Yield the rows after the first `skip` in parts of `rows` rows; the last part may be smaller."""
    waiting, count, done = list[Piece](), 0, skip
    for piece in pieces:
        skipped = min(skip, len(piece))
        skip, piece = skip - skipped, piece.slice(skipped, len(piece))
        while count + len(piece) >= rows:
            part = _part_rows([*waiting, piece.slice(0, rows - count)], done)
            piece, waiting, count, done = piece.slice(rows - count, len(piece)), [], 0, done + rows
            yield part
        waiting, count = [*waiting, piece], count + len(piece)
    if count:
        yield _part_rows(waiting, done)


def _part_rows(pieces: Sequence[Piece], before: int) -> PartRows:
    """Separate good from bad rows; `before` is the number of rows before the first."""
    good, bad, numbers = list[pa.Table](), list[pa.Table](), list[int]()
    texts: dict[str, list[str | None]] = {name: [] for name in pieces[0].cells}
    for piece in pieces:
        faults = row_faults(piece)
        good_rows, bad_rows = [index for index in range(len(piece)) if index not in faults], sorted(faults)
        good.append(piece.table.take(pa.array(good_rows, pa.int64())))
        numbers += [before + index + 1 for index in good_rows]
        for name, cells in piece.cells.items():
            texts[name] += [as_text(cells[index]) for index in good_rows]
        reason = {NUMBER: [before + index + 1 for index in bad_rows], "quarantine_reason": [faults[index] for index in bad_rows]}
        origin = {"quarantine_source": [piece.source] * len(bad_rows), "quarantine_row": [piece.first + index for index in bad_rows]}
        bad.append(_join_columns(pa.table(reason | origin, schema=QUARANTINE), piece.table.take(pa.array(bad_rows, pa.int64()))))
        before += len(piece)
    return PartRows(
        numbers, pa.concat_tables(good).combine_chunks(), pd.DataFrame(texts, dtype="str"), pa.concat_tables(bad).combine_chunks()
    )


def add_answers(table: pa.Table, answers: Mapping[str, Sequence[Any]], columns: Mapping[str, str]) -> pa.Table:
    """Return the rows with the answers, each in its column of `columns`."""
    arrays = {}
    for name, column in columns.items():
        cells = answers.get(name, [])
        arrays[column] = pa.array([list(cell.items()) for cell in cells] if name == "probabilities" else cells, ANSWERS[name])
    return _join_columns(table, pa.table(arrays))


def _join_columns(left: pa.Table, right: pa.Table) -> pa.Table:
    return pa.table([*left.columns, *right.columns], schema=pa.schema([*left.schema, *right.schema]))
