"""The ledger's tables, made once under a lock, and how they are read and written on SQLite and on PostgreSQL."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import sqlalchemy.exc
from sqlalchemy.pool import NullPool

from components.core.atomic import replacing
from components.core.errors import BadParams, NotFound, RetuneError, Unavailable, first_line
from components.core.locks import lock
from components.core.output_dir import private

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

# A link for every row of the tables above, in the order in which they were written. `entry` names the table, `row` is the row's primary
# key as JSON, `content` the hash of the row, and `hash` covers the link and the hash of the link before it.
chain = sa.Table(
    "chain",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("entry", sa.Text, nullable=False),
    sa.Column("row", sa.Text, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)

_REFUSES = "BEGIN RAISE EXCEPTION 'the ledger is append-only'; END"
_BEFORE_CHANGES = 58  # pg_trigger.tgtype: a statement's trigger BEFORE UPDATE OR DELETE OR TRUNCATE
_FUNCTION = f"CREATE OR REPLACE FUNCTION retune_append_only() RETURNS trigger AS $$ {_REFUSES} $$ LANGUAGE plpgsql"


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
    """Yield a connection on one state of the ledger, whatever others write meanwhile."""
    one_state = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    with _reaching(engine), engine.connect().execution_options(**one_state) as connection:
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
        raise Unavailable(f"the ledger {engine.url} is busy or out of reach: {first_line(error)}") from error
    except sqlalchemy.exc.IntegrityError:
        raise
    except sqlalchemy.exc.DatabaseError as error:
        raise RetuneError(f"the ledger {engine.url} cannot be read: {first_line(error)}; restore a copy") from error


Begin = Callable[[sa.Connection], object] | None


def prepare(engine: sa.Engine, begin: Begin) -> None:
    """Make the tables unless they exist, under a lock, since processes that make them at once would collide.

    `begin` is called, in the same transaction, where the ledger is older than its chain: it has rows that no link covers.

    Raises:
        NotThere: the file is empty. A new ledger is made aside and renamed, so an empty file is one that lost its content.
        RetuneError: the path is a folder, or a database of another program.
    """
    path = file_of(engine.url)
    with private(path.parent) if path else nullcontext():
        _prepare(engine, path, begin)


def _prepare(engine: sa.Engine, path: Path | None, begin: Begin) -> None:
    if path is not None:
        _make_file(engine, path, begin)
        check_file(path)
    with reading(engine) as connection:
        there = set(sa.inspect(connection).get_table_names())
        if not _missing(connection):
            return
    if path is None:
        make_tables(engine, begin)
        return
    if promotions.name not in there:
        known = f"it has the tables {', '.join(sorted(there)[:5])}" if there else "it has no tables"
        raise RetuneError(f"{path} is a database, but not a ledger ({known}): move it away, and {_RESTORE}")
    with lock(_lock_of(path), BUSY_SECONDS):
        make_tables(engine, begin)


_RESTORE = "restore a copy of the ledger; without one, `retune reconcile --accept --why TEXT` begins a new one from the aliases in MLflow"


def file_of(url: sa.URL) -> Path | None:
    """Return the SQLite file that an address names; None for a server, or a database in memory."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":", "file:")):
        return None
    return Path(url.database)


def _lock_of(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _make_file(engine: sa.Engine, path: Path, begin: Begin) -> None:
    if path.exists():
        return
    with lock(_lock_of(path), BUSY_SECONDS):
        if path.exists():
            return
        with replacing(path) as partial:
            make_tables(make_engine(str(engine.url.set(database=str(partial)))), begin)


def check_file(path: Path) -> None:
    """Refuse what cannot be a ledger's file; raises as `prepare`."""
    if path.is_dir():
        raise RetuneError(f"the ledger {path} is a folder, expected a SQLite file: move it away, and {_RESTORE}")
    if path.stat().st_size == 0:
        raise NotFound(f"the ledger {path} is empty (0 bytes), its content was lost: delete it, and {_RESTORE}")


def make_tables(engine: sa.Engine, begin: Begin = None) -> None:
    """Make the tables that are missing, with the triggers that refuse changes, and begin a chain where rows are older than it."""
    with writing(engine) as connection:
        missing = _missing(connection)
        METADATA.create_all(connection, tables=missing)
        guard(connection, None if chain in missing else missing)
        if begin and chain in missing and any(connection.execute(sa.select(table).limit(1)).first() for table in evidence()):
            begin(connection)


def evidence() -> list[sa.Table]:
    """Return the tables whose every row has a link in the chain."""
    return [table for table in METADATA.sorted_tables if table is not chain]


def guard(connection: sa.Connection, tables: Sequence[sa.Table] | None = None) -> None:
    """Make the triggers that refuse changes, of all tables or of some, in place of others of the same name."""
    postgresql = connection.dialect.name == "postgresql"
    if postgresql:
        connection.exec_driver_sql(_FUNCTION)
    for table in METADATA.sorted_tables if tables is None else tables:
        for name, statement in _append_only(table, connection.dialect.name).items():
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}{f' ON {table.name}' if postgresql else ''}")
            connection.exec_driver_sql(statement)


def unguarded(connection: sa.Connection) -> list[str]:
    """Return the names of the triggers that are missing, switched off or changed."""
    wanted = {name: sql for table in METADATA.sorted_tables for name, sql in _append_only(table, connection.dialect.name).items()}
    if connection.dialect.name == "postgresql":
        query = (
            "SELECT t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid"
            f" WHERE t.tgenabled IN ('O', 'A') AND t.tgtype = {_BEFORE_CHANGES} AND c.relnamespace = current_schema()::regnamespace"
            " AND t.tgname = c.relname || '_append_only' AND btrim(p.prosrc) = %s"
        )
        standing = set(connection.exec_driver_sql(query, (_REFUSES,)).scalars())
    else:
        found = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").all()
        standing = {name for name, sql in found if wanted.get(name) == sql}
    return sorted(wanted.keys() - standing)


def _missing(connection: sa.Connection) -> list[sa.Table]:
    """Return the tables that are not there yet: all of them, or what a ledger of an earlier release had not."""
    there = set(sa.inspect(connection).get_table_names())
    return [table for table in METADATA.sorted_tables if table.name not in there]


def _append_only(table: sa.Table, dialect: str) -> dict[str, str]:
    """Return, by name, the statements of the triggers that refuse to change, replace or delete what was written."""
    if dialect == "postgresql":
        name = f"{table.name}_append_only"
        return {
            name: f"CREATE TRIGGER {name} BEFORE UPDATE OR DELETE OR TRUNCATE ON {table.name} EXECUTE FUNCTION retune_append_only()",
        }
    refuse = "SELECT RAISE(ABORT, 'the ledger is append-only')"
    bodies = {f"{table.name}_no_{verb}": f"BEFORE {verb} ON {table.name} BEGIN {refuse}; END" for verb in ("update", "delete")}
    # INSERT OR REPLACE deletes without the trigger for deletions.
    same = " OR ".join(f"({' AND '.join(f'{name} = NEW.{name}' for name in names)})" for names in _unique(table))
    replaces = f"{refuse} WHERE EXISTS (SELECT 1 FROM {table.name} WHERE {same})"
    bodies[f"{table.name}_no_replace"] = f"BEFORE INSERT ON {table.name} BEGIN {replaces}; END"
    return {name: f"CREATE TRIGGER {name} {body}" for name, body in bodies.items()}


def _unique(table: sa.Table) -> list[list[str]]:
    """Return the columns that no two rows may share, together; in the same order in every process, as a set of constraints is not."""
    keys = [one for one in table.constraints if isinstance(one, sa.PrimaryKeyConstraint | sa.UniqueConstraint)]
    return sorted(list(key.columns.keys()) for key in keys)
