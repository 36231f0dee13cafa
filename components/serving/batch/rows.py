"""Rows on their way through a version: what of them it is asked, which cannot be scored and why, and what is written of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from components.core.errors import BadData, BadInput, BadSource
from components.core.section import did_you_mean
from components.data.snapshot.cells import as_text
from components.data.snapshot.read_errors import listed
from components.model import tasks
from components.serving.batch.files import Files, Piece
from components.serving.batch.records import OnBadRow

NUMBER = "row_number"
"""The number that a row has in the whole input, from 1 on."""
QUARANTINE = pa.schema(
    [(NUMBER, pa.int64()), ("quarantine_reason", pa.string()), ("quarantine_source", pa.string()), ("quarantine_row", pa.int64())]
)
ANSWERS = {
    "label": pa.string(),
    "probability": pa.float64(),
    "probabilities": pa.map_(pa.string(), pa.float64()),
    "answer": pa.string(),
}
SHOWN = 20  # bad rows in a message


@dataclass(frozen=True)
class Share:
    """A part's rows: `good` with the number of each and the `texts` that the version is asked with, `bad` as they go to quarantine."""

    numbers: Sequence[int]
    good: pa.Table
    texts: pd.DataFrame
    bad: pa.Table

    @property
    def rows(self) -> int:
        """The rows of the input that it covers."""
        return int(self.good.num_rows + self.bad.num_rows)


def inputs_of(task: tasks.Task, source: Files, columns: Mapping[str, str], usual: Mapping[str, str]) -> dict[str, str]:
    """Return the column of each input of the task: what `columns` gives, or `usual` where there is such a column, or of the same name.

    Raises:
        BadInput: a column that is needed is not there, or `columns` names what is no input.
    """
    if unknown := sorted(set(columns) - set(task.inputs)):
        raise BadInput(f"the version is asked with {', '.join(task.inputs)}, not with {unknown[0]!r}")
    found = list(source.schema.names)
    named = {name: columns.get(name) or (usual[name] if usual.get(name) in found else name) for name in task.inputs}
    if missing := [column for column in named.values() if column not in found]:
        hint, there = did_you_mean(missing[0], found), listed(found)
        raise BadInput(
            f"{source.called}: expected the column{'s' * (len(named) > 1)} {', '.join(map(repr, named.values()))}, found {there}{hint}; "
            f"--column {task.inputs[0]}=NAME says which one it is, if it has another name"
        )
    return named


def answers_of(task: tasks.Task, prefix: str) -> dict[str, str]:
    """Return what is told of each row, and the column that it is told in."""
    told = ("label", "probability", "probabilities") if task.classes else ("answer", "probabilities") if task.scored else ("answer",)
    return {name: prefix + name for name in told}


def check_names(source: Files, added: Iterable[str]) -> None:
    """Check that no column that is `added` has the name of one that is there.

    Raises:
        BadInput: one has.
    """
    if taken := [name for name in added if name in source.schema.names]:
        mend = "rename it" if taken[0] in QUARANTINE.names else "rename it, or put something before the answers' names: --prefix scored_"
        raise BadInput(f"{source.called} has a column {taken[0]!r} already, which would be added; {mend}")


def survey_rows(source: Files, inputs: Mapping[str, str], on_bad_row: OnBadRow) -> int:
    """Look through all rows, and return their number.

    Raises:
        BadSource: there is none, or a file is not well-formed.
        BadData: a row cannot be scored and is not to go to quarantine, or none can.
    """
    rows, bad, shown = 0, 0, list[str]()
    for piece in source.pieces(inputs):
        faults = faults_of(piece)
        rows, bad = rows + len(piece), bad + len(faults)
        shown += [f"{piece.called}: row {piece.first + place}: {fault}" for place, fault in sorted(faults.items())[: SHOWN - len(shown)]]
    if not rows:
        raise BadSource(f"{source.called} has no rows; expected at least one")
    if bad and (on_bad_row == "error" or bad == rows):
        mend = "" if bad == rows else "; --on-bad-row quarantine puts them aside"
        more = [f"and {bad - len(shown):,} more"] if bad > len(shown) else []
        raise BadData("\n".join([f"{bad:,} of {rows:,} rows cannot be scored{mend}", *shown, *more]))
    return rows


def faults_of(piece: Piece) -> dict[int, str]:
    """Return why rows cannot be scored, by their place in the piece; a list or an object is text as a snapshot has it, as JSON."""
    found: dict[int, str] = {}
    for name, cells in piece.cells.items():
        for place, cell in enumerate(cells):
            if not isinstance(cell, str | list | dict):
                found.setdefault(place, f"{name!r} is missing" if cell is None else f"{name!r} is {_kind(cell)}, expected text")
    return found


def _kind(cell: object) -> str:
    if isinstance(cell, bool):
        return "true or false"
    return "a number" if isinstance(cell, int | float) else f"of the type {type(cell).__name__}"


def shares(pieces: Iterator[Piece], rows: int, skip: int) -> Iterator[Share]:
    """Yield the rows behind the first `skip` in shares of `rows`, the last of them smaller; pieces are cut where a share ends."""
    waiting, count, done = list[Piece](), 0, skip
    for piece in pieces:
        behind = min(skip, len(piece))
        skip, piece = skip - behind, piece.cut(behind, len(piece))
        while count + len(piece) >= rows:
            share = _share([*waiting, piece.cut(0, rows - count)], done)
            piece, waiting, count, done = piece.cut(rows - count, len(piece)), [], 0, done + rows
            yield share
        waiting, count = [*waiting, piece], count + len(piece)
    if count:
        yield _share(waiting, done)


def _share(pieces: Sequence[Piece], before: int) -> Share:
    """Tell good rows from bad ones; `before` is the number of rows before the first."""
    good, bad, numbers = list[pa.Table](), list[pa.Table](), list[int]()
    texts: dict[str, list[str | None]] = {name: [] for name in pieces[0].cells}
    for piece in pieces:
        faults = faults_of(piece)
        keep = [place for place in range(len(piece)) if place not in faults]
        put = sorted(faults)
        good.append(piece.table.take(pa.array(keep, pa.int64())))
        numbers += [before + place + 1 for place in keep]
        for name, cells in piece.cells.items():
            texts[name] += [as_text(cells[place]) for place in keep]
        why = {NUMBER: [before + place + 1 for place in put], "quarantine_reason": [faults[place] for place in put]}
        where = {"quarantine_source": [piece.called] * len(put), "quarantine_row": [piece.first + place for place in put]}
        bad.append(_beside(pa.table(why | where, schema=QUARANTINE), piece.table.take(pa.array(put, pa.int64()))))
        before += len(piece)
    return Share(numbers, pa.concat_tables(good).combine_chunks(), pd.DataFrame(texts, dtype="str"), pa.concat_tables(bad).combine_chunks())


def with_answers(table: pa.Table, answers: Mapping[str, Sequence[Any]], columns: Mapping[str, str]) -> pa.Table:
    """Return the rows with what was answered, each in the column that `columns` gives it."""
    arrays = {}
    for name, column in columns.items():
        cells = answers.get(name, [])
        arrays[column] = pa.array([list(cell.items()) for cell in cells] if name == "probabilities" else cells, ANSWERS[name])
    return _beside(table, pa.table(arrays))


def _beside(left: pa.Table, right: pa.Table) -> pa.Table:
    return pa.table([*left.columns, *right.columns], schema=pa.schema([*left.schema, *right.schema]))
