"""A database table: each part is inserted in one transaction with its progress, so that no row is duplicated or lost.

The progress is a row of the table `retune_scores` in the same database, by the name of the target table. `row_number`, the primary key,
is the number of a row in the input. Quarantined rows are in TABLE_quarantine.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
import sqlalchemy.exc

from components.core.errors import BadInput, Unavailable
from components.core.hashing import digest_value
from components.core.locks import lock
from components.data import sql
from components.serving.batch.records import RowCounts, ScoringManifest, ScoringPlan
from components.serving.batch.rows import NUMBER

_REPLACED = -1  # `rows_done` while a table is being removed

_METADATA = sa.MetaData()
progress = sa.Table(
    "retune_scores",
    _METADATA,
    sa.Column("written", sa.String(255), primary_key=True),
    sa.Column("plan", sa.Text, nullable=False),
    sa.Column("rows_done", sa.BigInteger, nullable=False),
    sa.Column("scored", sa.BigInteger, nullable=False),
    sa.Column("manifest", sa.Text),
)


class TableTarget:
    """The table at `address`; `locks` is the folder of the lock file for processes of this machine."""

    added_columns: tuple[str, ...] = (NUMBER,)

    def __init__(self, address: sql.TableAddress, locks: Path) -> None:
        self._address = address
        self._key = f"{address.schema}.{address.table}" if address.schema else address.table
        self._lock = locks / f"score-{digest_value([address.url.render_as_string(hide_password=True), self._key])[:16]}.lock"
        self._own = progress.c.written == self._key
        self._done = RowCounts(0, 0)

    def __str__(self) -> str:
        return str(self._address)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the table among the processes of this machine; `add` detects those of other machines."""
        with lock(self._lock, busy=f"{self}: another process is scoring into this table; wait for it or stop it"):
            yield

    def unfinished(self) -> ScoringPlan | None:
        """Return the plan of an incomplete scoring; None if the table does not exist. Raise BadInput if it contains anything else."""
        with self._transaction() as connection:
            record = self._record(connection)
            if record is None:
                return None
            if record.manifest is not None:
                manifest = ScoringManifest.model_validate_json(record.manifest)
                raise BadInput(
                    f"{self} is complete: {manifest.scored:,} rows scored by {manifest.model_uri}; pass --replace to start again"
                )
            if record.rows_done == _REPLACED:
                raise BadInput(f"{self}: an earlier --replace was interrupted; pass --replace to finish it")
            rows = self._count(connection)
            if rows != record.scored:
                raise BadInput(f"{self} has {rows:,} rows, but {record.scored:,} were written; pass --replace to start again")
            return ScoringPlan.model_validate_json(record.plan)

    def clear(self) -> None:
        """Remove what `retune score` wrote, even after an interruption; raise BadInput if it did not write the table."""
        with self._transaction() as connection:
            if self._record(connection) is None:
                return
            connection.execute(sa.update(progress).where(self._own).values(rows_done=_REPLACED, scored=0, manifest=None))
        with self._transaction() as connection:
            for name in self._names():
                sa.Table(name, sa.MetaData(), schema=self._address.schema).drop(connection, checkfirst=True)
        with self._transaction() as connection:
            connection.execute(sa.delete(progress).where(self._own))

    def begin(self, plan: ScoringPlan) -> None:
        """Write the plan; the tables are created with the first part."""
        with self._transaction() as connection:
            _METADATA.create_all(connection)
            connection.execute(sa.insert(progress).values(written=self._key, plan=plan.model_dump_json(), rows_done=0, scored=0))

    def resume(self) -> RowCounts:
        """Return the number of rows of the input that were written or quarantined."""
        with self._transaction() as connection:
            record = self._record(connection)
        assert record is not None
        self._done = RowCounts(record.rows_done, record.scored)
        return self._done

    def add(self, numbers: Sequence[int], scored: pa.Table, bad: pa.Table) -> None:
        """Insert the next part, whose rows have `numbers` in the input, and the quarantined rows; raise Unavailable if it cannot.

        The parts before are complete if the database is full or unreachable, or if another process wrote here meanwhile.
        """
        target, quarantine = self._tables(scored.schema, bad.schema)
        with self._transaction() as connection:
            for table in (target, quarantine)[: 1 + bool(bad.num_rows)]:
                table.create(connection, checkfirst=True)
        done = RowCounts(self._done.rows + scored.num_rows + bad.num_rows, self._done.scored + scored.num_rows)
        with self._transaction() as connection:
            before = sa.update(progress).where(self._own).where(progress.c.rows_done == self._done.rows)
            if connection.execute(before.values(rows_done=done.rows, scored=done.scored)).rowcount != 1:
                raise Unavailable(self._conflict)
            for table, rows in ((target, _rows(scored, target, numbers)), (quarantine, _rows(bad, quarantine))):
                try:
                    if rows:
                        connection.execute(sa.insert(table), rows)
                except sqlalchemy.exc.IntegrityError:  # a row with this number exists
                    raise Unavailable(self._conflict) from None
        self._done = done

    def finish(self, manifest: ScoringManifest) -> ScoringManifest:
        """Store the manifest, and return it."""
        with self._transaction() as connection:
            connection.execute(sa.update(progress).where(self._own).values(manifest=manifest.model_dump_json()))
        return manifest

    @property
    def _conflict(self) -> str:
        return f"{self}: another process wrote here meanwhile; wait for it or stop it"

    def _names(self) -> tuple[str, str]:
        return self._address.table, f"{self._address.table}_quarantine"

    def _has(self, connection: sa.Connection, name: str) -> bool:
        return sa.inspect(connection).has_table(name, self._address.schema)

    def _count(self, connection: sa.Connection) -> int:
        if not self._has(connection, self._address.table):
            return 0
        table = sa.table(self._address.table, schema=self._address.schema)
        return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()

    def _record(self, connection: sa.Connection) -> "sa.Row[Any] | None":
        """Return the progress; None if the tables do not exist. Raise BadInput if `retune score` did not write them."""
        if sa.inspect(connection).has_table(progress.name):
            record = connection.execute(sa.select(progress).where(self._own)).one_or_none()
            if record is not None:
                return record
        if any(self._has(connection, name) for name in self._names()):
            raise BadInput(f"{self} exists, and `retune score` did not write it; choose another table")
        return None

    def _tables(self, scored: pa.Schema, bad: pa.Schema) -> tuple[sa.Table, sa.Table]:
        metadata, number = sa.MetaData(), pa.field(NUMBER, pa.int64())
        fields = ([number, *scored], list(bad))
        target, quarantine = (
            sa.Table(name, metadata, *map(_column, columns), schema=self._address.schema)
            for name, columns in zip(self._names(), fields, strict=True)
        )
        return target, quarantine

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with sql.connect_to(self._address, create=True) as connection, connection.begin():
            yield connection


def _column(field: pa.Field) -> "sa.Column[Any]":
    return sa.Column(field.name, sql.sql_type(field.type), primary_key=field.name == NUMBER, autoincrement=False)


def _rows(table: pa.Table, target: sa.Table, numbers: Sequence[int] = ()) -> list[Mapping[str, Any]]:
    types = {column.name: column.type for column in target.columns}
    columns = {name: [sql.as_value(cell, types[name]) for cell in _cells(table.column(name))] for name in table.column_names}
    columns = ({NUMBER: list(numbers)} if numbers else {}) | columns
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _cells(column: pa.ChunkedArray) -> list[Any]:
    cells: list[Any] = column.to_pylist()
    return [dict(cell) if cell is not None else None for cell in cells] if pa.types.is_map(column.type) else cells
