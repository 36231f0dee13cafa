"""A database's table: parts are inserted in transactions, each with the note that it was, so that no row is there twice or missing.

The note is a row of the table `retune_scores`, in the same database, by the name of the table that is written. Rows keep the number that
they have in the input as `row_number`, the primary key. What goes to quarantine is in TABLE_quarantine.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import sqlalchemy as sa
import sqlalchemy.exc

from components.core.errors import BadInput, Unavailable
from components.core.hashing import digest_value
from components.core.locks import lock
from components.data import sql
from components.serving.batch.records import RowCounts, ScoringManifest, ScoringPlan
from components.serving.batch.rows import NUMBER

S = TypeVar("S", sa.Update, sa.Delete)
_REPLACED = -1  # rows done while a table is being removed

_NOTES = sa.MetaData()
notes = sa.Table(
    "retune_scores",
    _NOTES,
    sa.Column("written", sa.String(255), primary_key=True),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("rows_done", sa.BigInteger, nullable=False),
    sa.Column("scored", sa.BigInteger, nullable=False),
    sa.Column("manifest", sa.Text),
)


class TableTarget:
    """The table at `place`; `locks` is the folder in which processes of this machine keep out of each other's way."""

    adds: tuple[str, ...] = (NUMBER,)

    def __init__(self, place: sql.TableAddress, locks: Path) -> None:
        self._place = place
        self._key = f"{place.schema}.{place.table}" if place.schema else place.table
        self._lock = locks / f"score-{digest_value([place.url.render_as_string(hide_password=True), self._key])[:16]}.lock"
        self._done = RowCounts(0, 0)

    def __str__(self) -> str:
        """Return the address, without what is secret."""
        return str(self._place)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the table among the processes of this machine; others are found out by the database, at the next part.

        Raises:
            Unavailable: another process holds it.
        """
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with lock(self._lock, busy=f"{self}: another process is scoring into this table; wait for it or end it"):
            yield

    def standing(self) -> ScoringPlan | None:
        """Return what was begun here and is not complete; None where there is no such table.

        Raises:
            BadInput: it is complete, was being replaced, was changed, or is no table that `retune score` wrote.
        """
        with self._transaction() as connection:
            there = {name: self._has(connection, name) for name in self._names()}
            note = self._note(connection)
            if note is None:
                if any(there.values()):
                    raise BadInput(f"{self} is there, and `retune score` has not written it; name another table")
                return None
            if note.manifest is not None:
                manifest = ScoringManifest.model_validate_json(note.manifest)
                raise BadInput(f"{self} is complete: {manifest.scored:,} rows scored by {manifest.model_uri}; --replace begins anew")
            if note.rows_done == _REPLACED:
                raise BadInput(f"{self}: what was here was being replaced; --replace goes on with that")
            found = self._count(connection) if there[self._place.table] else 0
            if found != note.scored:
                raise BadInput(f"{self} has {found:,} rows, and {note.scored:,} were written; --replace begins anew")
            return ScoringPlan.model_validate_json(note.plan)

    def clear(self) -> None:
        """Remove what `retune score` has written here; what a kill leaves is known for what it is.

        Raises:
            BadInput: there is such a table, and `retune score` has not written it.
        """
        with self._transaction() as connection:
            if self._note(connection) is None:
                if any(self._has(connection, name) for name in self._names()):
                    raise BadInput(f"{self} is there, and `retune score` has not written it; name another table")
                return
            connection.execute(self._mine(sa.update(notes)).values(rows_done=_REPLACED, scored=0, manifest=None))
        with self._transaction() as connection:
            for name in self._names():
                sa.Table(name, sa.MetaData(), schema=self._place.schema).drop(connection, checkfirst=True)
        with self._transaction() as connection:
            connection.execute(self._mine(sa.delete(notes)))

    def begin(self, plan: ScoringPlan) -> None:
        """Write down what is begun; the tables are made with the first part."""
        with self._transaction() as connection:
            _NOTES.create_all(connection)
            connection.execute(sa.insert(notes).values(written=self._key, plan=plan.model_dump_json(), rows_done=0, scored=0))

    def go_on(self) -> RowCounts:
        """Return what of the input was written or put into quarantine, from the first row on."""
        with self._transaction() as connection:
            note = self._note(connection)
        assert note is not None
        self._done = RowCounts(note.rows_done, note.scored)
        return self._done

    def add(self, numbers: Sequence[int], scored: pa.Table, bad: pa.Table) -> None:
        """Insert the next part, whose rows have `numbers` in the input, and the rows of its share that go to quarantine.

        Raises:
            Unavailable: the database is full or out of reach, or another process wrote here meanwhile; the parts before are whole.
        """
        target, quarantine = self._tables(scored.schema, bad.schema)
        with self._transaction() as connection:
            for table in (target, quarantine)[: 1 + bool(bad.num_rows)]:
                table.create(connection, checkfirst=True)
        done = RowCounts(self._done.rows + scored.num_rows + bad.num_rows, self._done.scored + scored.num_rows)
        with self._transaction() as connection:
            before = self._mine(sa.update(notes)).where(notes.c.rows_done == self._done.rows)
            if connection.execute(before.values(rows_done=done.rows, scored=done.scored)).rowcount != 1:
                raise Unavailable(self._crossed)
            for table, rows in ((target, _rows(scored, target, numbers)), (quarantine, _rows(bad, quarantine))):
                self._insert(connection, table, rows)
        self._done = done

    def finish(self, manifest: ScoringManifest) -> ScoringManifest:
        """Write down that all is there, and return what stands."""
        with self._transaction() as connection:
            connection.execute(self._mine(sa.update(notes)).values(manifest=manifest.model_dump_json()))
        return manifest

    def _insert(self, connection: sa.Connection, table: sa.Table, rows: list[Mapping[str, Any]]) -> None:
        try:
            if rows:
                connection.execute(sa.insert(table), rows)
        except sqlalchemy.exc.IntegrityError:  # a row with this number is there
            raise Unavailable(self._crossed) from None

    @property
    def _crossed(self) -> str:
        return f"{self}: another process wrote here meanwhile; wait for it or end it"

    def _names(self) -> tuple[str, str]:
        return self._place.table, f"{self._place.table}_quarantine"

    def _has(self, connection: sa.Connection, name: str) -> bool:
        return sa.inspect(connection).has_table(name, self._place.schema)

    def _count(self, connection: sa.Connection) -> int:
        table = sa.table(self._place.table, schema=self._place.schema)
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()

    def _note(self, connection: sa.Connection) -> "sa.Row[Any] | None":
        if not sa.inspect(connection).has_table(notes.name):
            return None
        return connection.execute(sa.select(notes).where(notes.c.written == self._key)).one_or_none()

    def _mine(self, statement: S) -> S:
        return statement.where(notes.c.written == self._key)

    def _tables(self, scored: pa.Schema, bad: pa.Schema) -> tuple[sa.Table, sa.Table]:
        metadata, number = sa.MetaData(), pa.field(NUMBER, pa.int64())
        fields = ([number, *scored], list(bad))
        target, quarantine = (
            sa.Table(name, metadata, *map(_column, each), schema=self._place.schema)
            for name, each in zip(self._names(), fields, strict=True)
        )
        return target, quarantine

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with sql.reached(self._place, makes=True) as connection, connection.begin():
            yield connection


def _column(field: pa.Field) -> "sa.Column[Any]":
    return sa.Column(field.name, sql.sql_type(field.type), primary_key=field.name == NUMBER, autoincrement=False)


def _rows(table: pa.Table, target: sa.Table, numbers: Sequence[int] = ()) -> list[Mapping[str, Any]]:
    kinds = {column.name: column.type for column in target.columns}
    columns = {name: [sql.as_value(cell, kinds[name]) for cell in _cells(table.column(name))] for name in table.column_names}
    columns = ({NUMBER: list(numbers)} if numbers else {}) | columns
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _cells(column: pa.ChunkedArray) -> list[Any]:
    cells: list[Any] = column.to_pylist()
    return [dict(cell) if cell is not None else None for cell in cells] if pa.types.is_map(column.type) else cells
