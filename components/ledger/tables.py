"""The ledger's tables, made once under a lock, and how they are read and written on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import sqlalchemy.exc
from sqlalchemy.pool import NullPool

from components.errors import BadParams, RetuneError, Unavailable
from components.locks import hold

BUSY_SECONDS = 60  # that a writer waits for another one
_WRITES = "retune_writes"
_LOCK = 7_250_301  # PostgreSQL's advisory lock of the ledger's writers; any number that nobody else takes

METADATA = sa.MetaData()


class Moment(sa.types.TypeDecorator[datetime]):
    """A moment in UTC as text of one length, which sorts as time does on every database."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> str | None:
        """Write a moment; one without a zone is taken for UTC."""
        if value is None:
            return None
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> datetime | None:
        """Read a moment."""
        return None if value is None else datetime.fromisoformat(value)


promotions = sa.Table(
    "promotions",
    METADATA,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", Moment, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("previous", sa.Integer),
    sa.Column("anchor", sa.Integer),
    sa.Column("verdict_key", sa.Text),
    sa.Column("outcome", sa.Text),
    sa.Column("evidence", sa.Text),
    sa.Column("forced", sa.Boolean, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("origin", sa.Text),
)

requests = sa.Table(
    "requests",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("run", sa.Text, nullable=False, index=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("expected", sa.Integer),
    sa.Column("anchor", sa.Integer),
    sa.Column("verdict_key", sa.Text),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("evidence", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("asked_at", Moment, nullable=False),
    sa.Column("expires_at", Moment, nullable=False),
)

answers = sa.Table(
    "answers",
    METADATA,
    sa.Column("request", sa.Integer, sa.ForeignKey("requests.number"), primary_key=True, autoincrement=False),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("decided_at", Moment, nullable=False),
)

looks = sa.Table(
    "looks",
    METADATA,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("test_digest", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("candidate_key", sa.Text, nullable=False),
    sa.Column("at", Moment, nullable=False),
    sa.UniqueConstraint("model", "test_digest", "candidate_key"),
)

test_rows = sa.Table(
    "test_rows",
    METADATA,
    sa.Column("test_digest", sa.Text, primary_key=True),
    sa.Column("row_keys", sa.Text, nullable=False),
)

retrainings = sa.Table(
    "retrainings",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("model", sa.Text, nullable=False, index=True),
    sa.Column("at", Moment, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("version", sa.Integer),
    sa.Column("basis", sa.Text, nullable=False),
    sa.Column("git_commit", sa.Text, nullable=False),
    sa.Column("flow_run", sa.Text),
)

_FUNCTION = """CREATE OR REPLACE FUNCTION retune_append_only() RETURNS trigger AS $$
BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$ LANGUAGE plpgsql"""


def make_engine(url: str) -> sa.Engine:
    """Return an engine that opens a connection for each use: promotions are rare, and nothing is left open.

    Raises:
        BadParams: the address is none, or its driver is not installed.
    """
    try:
        sqlite = sa.make_url(url).get_backend_name() == "sqlite"
        engine = sa.create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS} if sqlite else {})
    except (sqlalchemy.exc.ArgumentError, ImportError) as error:
        raise BadParams(f"the ledger's address cannot be used, expected sqlite:///… or postgresql+psycopg://…: {error}") from None
    if sqlite:
        sa.event.listen(engine, "connect", _leave_transactions_to_us)
        sa.event.listen(engine, "begin", _begin)
    return engine


def _leave_transactions_to_us(connection: Any, _record: object) -> None:
    connection.isolation_level = None


def _begin(connection: sa.Connection) -> None:
    # A writer takes SQLite's lock before it reads: two that read first would both think that they may write.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(_WRITES) else "BEGIN")


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection on one state of the ledger."""
    with _reaching(engine), engine.connect() as connection:
        yield connection


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection whose reads and writes are one transaction, alone with the ledger; it is committed at the end."""
    with _reaching(engine), engine.connect().execution_options(**{_WRITES: True}) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        yield connection


@contextmanager
def _reaching(engine: sa.Engine) -> Iterator[None]:
    try:
        yield
    except sqlalchemy.exc.OperationalError as error:
        raise Unavailable(f"the ledger {engine.url} is busy or out of reach: {_first_line(error)}") from error
    except sqlalchemy.exc.IntegrityError:
        raise
    except sqlalchemy.exc.DatabaseError as error:
        raise RetuneError(f"the ledger {engine.url} cannot be read: {_first_line(error)}; restore a copy") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def prepare(engine: sa.Engine) -> None:
    """Make the tables unless they are there: under a lock, since processes that make them at once would collide."""
    with reading(engine) as connection:
        if not _missing(connection):
            return
    if engine.dialect.name == "sqlite" and engine.url.database:
        with hold(Path(f"{engine.url.database}.lock"), BUSY_SECONDS):
            _make(engine)
    else:
        _make(engine)


def _make(engine: sa.Engine) -> None:
    with writing(engine) as connection:
        missing = _missing(connection)
        METADATA.create_all(connection, tables=missing)
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql(_FUNCTION)
        for table in missing:
            for statement in _append_only(table, engine.dialect.name):
                connection.exec_driver_sql(statement)


def _missing(connection: sa.Connection) -> list[sa.Table]:
    """Return the tables that are not there yet: all of them, or what a ledger of an earlier release had not."""
    there = set(sa.inspect(connection).get_table_names())
    return [table for table in METADATA.sorted_tables if table.name not in there]


def _append_only(table: sa.Table, dialect: str) -> list[str]:
    """Return the statements that let the database refuse to change, replace or delete what was written."""
    if dialect == "postgresql":
        return [
            f"CREATE TRIGGER {table.name}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table.name}"
            " EXECUTE FUNCTION retune_append_only()",
        ]
    refuse = "SELECT RAISE(ABORT, 'the ledger is append-only')"
    changes = [f"CREATE TRIGGER {table.name}_no_{verb} BEFORE {verb} ON {table.name} BEGIN {refuse}; END" for verb in ("update", "delete")]
    # INSERT OR REPLACE deletes without the trigger for deletions.
    same = " OR ".join(f"({' AND '.join(f'{name} = NEW.{name}' for name in names)})" for names in _unique(table))
    replaces = f"{refuse} WHERE EXISTS (SELECT 1 FROM {table.name} WHERE {same})"
    return [*changes, f"CREATE TRIGGER {table.name}_no_replace BEFORE INSERT ON {table.name} BEGIN {replaces}; END"]


def _unique(table: sa.Table) -> list[list[str]]:
    """Return the columns that no two rows may share, together."""
    keys = [one for one in table.constraints if isinstance(one, sa.PrimaryKeyConstraint | sa.UniqueConstraint)]
    return [list(key.columns.keys()) for key in keys]
