"""The tables of the ledger, and transactions on SQLite and PostgreSQL."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import sqlalchemy as sa
import sqlalchemy.exc
from sqlalchemy.pool import NullPool

from components.core.atomic import replacing
from components.core.errors import BadParams, NotFound, RetuneError, Unavailable, first_line
from components.core.locks import lock
from components.core.output_dir import make_private, private
from components.ledger.records import Entry, Request, Retraining

BUSY_SECONDS = 60  # how long a writer waits for another one
_WRITES = "retune_writes"
_LOCK = 7_250_301  # key of PostgreSQL's advisory lock for writers; any unused number

METADATA = sa.MetaData()
_RESTORE = "restore a copy of the ledger; without one, `retune reconcile --accept --why TEXT` creates a new one from the aliases in MLflow"


class Moment(sa.types.TypeDecorator[datetime]):
    """A time in UTC as text of fixed length, which sorts chronologically on every database."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> str | None:
        """Write a time; without a time zone it is UTC."""
        if value is None:
            return None
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat(timespec="microseconds")

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> datetime | None:
        """Read a time."""
        return None if value is None else datetime.fromisoformat(value)


_TYPES: Mapping[Any, type[sa.types.TypeEngine[Any]]] = {int: sa.Integer, bool: sa.Boolean, datetime: Moment}


def _columns(record: type, *, key: Collection[str] = (), indexed: str = "") -> Iterator[sa.Column[Any]]:
    """Yield a column per field of a record: text unless it has one of `_TYPES`, null if the field may be None."""
    for name, hint in get_type_hints(record).items():
        types = get_args(hint) or (hint,)
        sql_type = next((_TYPES[python_type] for python_type in types if python_type in _TYPES), sa.Text)
        yield sa.Column(name, sql_type, primary_key=name in key, nullable=NoneType in types, index=name == indexed or None)


promotions = sa.Table("promotions", METADATA, *_columns(Entry, key=("model", "sequence")))

answers = sa.Table(
    "answers",
    METADATA,
    sa.Column("request", sa.Integer, sa.ForeignKey("requests.number"), primary_key=True, autoincrement=False),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("decided_at", Moment, nullable=False),
)

requests = sa.Table(
    "requests",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),
    *(column for column in _columns(Request, indexed="run") if column.name not in answers.c),
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
    "test_rows", METADATA, sa.Column("test_digest", sa.Text, primary_key=True), sa.Column("row_keys", sa.Text, nullable=False)
)

retrainings = sa.Table("retrainings", METADATA, sa.Column("number", sa.Integer, primary_key=True), *_columns(Retraining, indexed="model"))

# A link for every row of the tables above, in writing order. `entry` is the table, `row` the primary key as JSON, `content` the hash
# of the row, and `hash` covers the link including `previous`, the hash of the previous link.
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
_BEFORE_CHANGES = 58  # pg_trigger.tgtype of a statement trigger BEFORE UPDATE OR DELETE OR TRUNCATE
_FUNCTION = f"CREATE OR REPLACE FUNCTION retune_append_only() RETURNS trigger AS $$ {_REFUSES} $$ LANGUAGE plpgsql"


def make_engine(url: str) -> sa.Engine:
    """Return an engine that opens a new connection for each use, since promotions are rare.

    Raises:
        BadParams: the URL is invalid, or its driver is not installed.
    """
    try:
        sqlite = sa.make_url(url).get_backend_name() == "sqlite"
        engine = sa.create_engine(url, poolclass=NullPool, connect_args={"timeout": BUSY_SECONDS} if sqlite else {})
    except (sqlalchemy.exc.ArgumentError, ImportError) as error:
        raise BadParams(f"the URL of the ledger cannot be used, expected sqlite:///… or postgresql+psycopg://…: {error}") from None
    if sqlite:
        sa.event.listen(engine, "connect", _disable_implicit_transactions)
        sa.event.listen(engine, "begin", _begin)
    return engine


def _disable_implicit_transactions(connection: Any, _record: object) -> None:
    connection.isolation_level = None


def _begin(connection: sa.Connection) -> None:
    # A writer locks SQLite before it reads; otherwise two writers could decide on the same state.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(_WRITES) else "BEGIN")


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection with a consistent snapshot of the ledger."""
    options = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
    with _translate_errors(engine), engine.connect().execution_options(**options) as connection:
        yield connection


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Yield a connection with an exclusive transaction, which is committed at the end."""
    with _translate_errors(engine), engine.connect().execution_options(**{_WRITES: True}) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        yield connection


@contextmanager
def _translate_errors(engine: sa.Engine) -> Iterator[None]:
    try:
        yield
    except sqlalchemy.exc.OperationalError as error:
        raise Unavailable(f"the ledger {engine.url} is busy or unreachable: {first_line(error)}") from error
    except sqlalchemy.exc.IntegrityError:
        raise
    except sqlalchemy.exc.DatabaseError as error:
        raise RetuneError(f"the ledger {engine.url} cannot be read: {first_line(error)}; restore a copy") from error


Begin = Callable[[sa.Connection], object] | None


def prepare(engine: sa.Engine, begin: Begin) -> None:
    """Create the missing file and tables, under a lock against other processes.

    `begin` is called in the same transaction if the ledger has rows but no chain.

    Raises:
        NotFound: the file is empty. A new ledger is created by rename, so an empty file has lost its content.
        RetuneError: the path is a folder or another database, or its folder cannot be created.
    """
    path = file_of(engine.url)
    if path is None:
        if _missing(_table_names(engine)):
            make_tables(engine, begin)
        return
    try:
        make_private(path.parent)
    except OSError as error:
        raise RetuneError(f"the ledger's folder {path.parent} cannot be created: {error.strerror or error}") from error
    lock_file = path.with_name(path.name + ".lock")
    with private(path.parent):
        if not path.exists():
            with lock(lock_file, BUSY_SECONDS):
                if not path.exists():
                    with replacing(path, locked=False) as partial:
                        make_tables(make_engine(str(engine.url.set(database=str(partial)))), begin)
        check_file(path)
        names = _table_names(engine)
        if promotions.name not in names:
            content = f"it has the tables {', '.join(sorted(names)[:5])}" if names else "it has no tables"
            raise RetuneError(f"{path} is a database, but not a ledger ({content}): move it away, and {_RESTORE}")
        if _missing(names):
            with lock(lock_file, BUSY_SECONDS):
                make_tables(engine, begin)


def _table_names(engine: sa.Engine) -> list[str]:
    with reading(engine) as connection:
        return sa.inspect(connection).get_table_names()


def _missing(names: Collection[str]) -> list[sa.Table]:
    """Return the missing tables: all of them, or those that are new in this release."""
    return [table for table in METADATA.sorted_tables if table.name not in names]


def file_of(url: sa.URL) -> Path | None:
    """Return the SQLite file of a URL; None for a server or an in-memory database."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database.startswith((":", "file:")):
        return None
    return Path(url.database)


def check_file(path: Path) -> None:
    """Raise the errors of `prepare` if the path cannot be a ledger file."""
    if path.is_dir():
        raise RetuneError(f"the ledger {path} is a folder, expected a SQLite file: move it away, and {_RESTORE}")
    if path.stat().st_size == 0:
        raise NotFound(f"the ledger {path} is empty (0 bytes), its content was lost: delete it, and {_RESTORE}")


def make_tables(engine: sa.Engine, begin: Begin = None) -> None:
    """Create missing tables with their triggers; call `begin` if the chain is new but there are rows."""
    with writing(engine) as connection:
        missing = _missing(sa.inspect(connection).get_table_names())
        METADATA.create_all(connection, tables=missing)
        guard(connection, None if chain in missing else missing)
        if begin and chain in missing and any(connection.execute(sa.select(table).limit(1)).first() for table in evidence()):
            begin(connection)


def evidence() -> list[sa.Table]:
    """Return the tables covered by the chain."""
    return [table for table in METADATA.sorted_tables if table is not chain]


def guard(connection: sa.Connection, tables: Sequence[sa.Table] | None = None) -> None:
    """Create or replace the append-only triggers of all or some tables."""
    postgresql = connection.dialect.name == "postgresql"
    if postgresql:
        connection.exec_driver_sql(_FUNCTION)
    for table in METADATA.sorted_tables if tables is None else tables:
        for name, statement in _append_only(table, connection.dialect.name).items():
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}{f' ON {table.name}' if postgresql else ''}")
            connection.exec_driver_sql(statement)


def unguarded(connection: sa.Connection) -> list[str]:
    """Return the names of the triggers that are missing, disabled or changed."""
    expected = {name: sql for table in METADATA.sorted_tables for name, sql in _append_only(table, connection.dialect.name).items()}
    if connection.dialect.name == "postgresql":
        query = (
            "SELECT t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid"
            f" WHERE t.tgenabled IN ('O', 'A') AND t.tgtype = {_BEFORE_CHANGES} AND c.relnamespace = current_schema()::regnamespace"
            " AND t.tgname = c.relname || '_append_only' AND btrim(p.prosrc) = %s"
        )
        present = set(connection.exec_driver_sql(query, (_REFUSES,)).scalars())
    else:
        triggers = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").all()
        present = {name for name, sql in triggers if expected.get(name) == sql}
    return sorted(expected.keys() - present)


def _append_only(table: sa.Table, dialect: str) -> dict[str, str]:
    """Return the statements of the triggers that refuse to change, replace or delete rows, by name."""
    if dialect == "postgresql":
        name = f"{table.name}_append_only"
        return {name: f"CREATE TRIGGER {name} BEFORE UPDATE OR DELETE OR TRUNCATE ON {table.name} EXECUTE FUNCTION retune_append_only()"}
    refuse = "SELECT RAISE(ABORT, 'the ledger is append-only')"
    bodies = {f"{table.name}_no_{verb}": f"BEFORE {verb} ON {table.name} BEGIN {refuse}; END" for verb in ("update", "delete")}
    # INSERT OR REPLACE deletes without firing the delete trigger.
    same = " OR ".join(f"({' AND '.join(f'{name} = NEW.{name}' for name in names)})" for names in _unique(table))
    replaces = f"{refuse} WHERE EXISTS (SELECT 1 FROM {table.name} WHERE {same})"
    bodies[f"{table.name}_no_replace"] = f"BEFORE INSERT ON {table.name} BEGIN {replaces}; END"
    return {name: f"CREATE TRIGGER {name} {body}" for name, body in bodies.items()}


def _unique(table: sa.Table) -> list[list[str]]:
    """Return the columns of each unique constraint, sorted, since sets of constraints have no order."""
    keys = [constraint for constraint in table.constraints if isinstance(constraint, sa.PrimaryKeyConstraint | sa.UniqueConstraint)]
    return sorted(list(key.columns.keys()) for key in keys)
