"""sql://NAME: snapshots of a real SQLite and a real PostgreSQL database; no message contains the password."""

import json
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.artifacts.manifest import SnapshotManifest
from components.artifacts.rows import read_snapshot
from components.core.errors import BadParams, BadSource, RetuneError, Unavailable
from components.data.snapshot import SnapshotParams, describe_source, take_snapshot
from tests.support.postgres import PASSWORD, Cluster

TICKETS = [
    "CREATE TABLE tickets (id integer, text text, label text)",
    "INSERT INTO tickets VALUES (1, 'a 100% :rise at 12:30', 'up'), (2, NULL, 'up'), (3, '', 'down'), (4, 'NULL', 'down')",
]
QUERY = "SELECT id, text, label FROM tickets"


@pytest.fixture(scope="module")
def database(postgres: Cluster) -> str:
    """A PostgreSQL database with the tickets."""
    name = postgres.new_database()
    postgres.run(name, *TICKETS)
    return name


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with the tickets."""
    if request.param == "postgresql":
        yield request.getfixturevalue("postgres").url(request.getfixturevalue("database"))
        return
    with sqlite3.connect(tmp_path / "tickets.db") as connection:
        for statement in TICKETS:
            connection.execute(statement)
    connection.close()
    yield f"sqlite:///{tmp_path / 'tickets.db'}"


def take(root: Path, address: str | None, query: str | None = QUERY, **settings: object) -> SnapshotManifest:
    section = {"source": "sql://ticket-store", "query": query, **settings}
    environment = {} if address is None else {"RETUNE_SQL_TICKET_STORE": address}
    return take_snapshot(root, root / "raw", snapshot=SnapshotParams.parse(section, "snapshot"), environment=environment)


def rows(root: Path) -> set[tuple[str | None, ...]]:
    return {tuple(None if cell != cell else cell for cell in row) for row in read_snapshot(root / "raw").itertuples(index=False)}


@pytest.mark.slow
def test_nulls_empty_texts_percents_and_colons_are_kept(tmp_path: Path, address: str) -> None:
    manifest = take(tmp_path, address, "SELECT id, text, label, '50% of :these' AS note FROM tickets WHERE label LIKE '%';")

    assert (manifest.source, manifest.format, manifest.rows) == ("sql://ticket-store", "sql", 4)
    texts = {("1", "a 100% :rise at 12:30", "up"), ("2", None, "up"), ("3", "", "down"), ("4", "NULL", "down")}
    assert rows(tmp_path) == {(*row, "50% of :these") for row in texts}


def test_order_of_a_query_does_not_change_the_snapshot(tmp_path: Path, address: str) -> None:
    first = take(tmp_path, address, f"{QUERY} ORDER BY id")

    assert take(tmp_path, address, f"{QUERY} ORDER BY id DESC") == first
    assert take(tmp_path, address, f"{QUERY} WHERE id < 4").digest != first.digest


TYPED = """
SELECT 7 AS a, 1.50::numeric(10, 2) AS b, 1e30::numeric AS c, 0.1::float8 AS d, true AS e, DATE '2026-02-28' AS f,
       TIMESTAMP '2026-02-28 12:30:00' AS g, TIMESTAMPTZ '2026-02-28 12:30:00+05' AS h, ARRAY['x', NULL, 'y'] AS i,
       '{"b": [1, 2.5], "a": null}'::jsonb AS j, '"x"'::jsonb AS k, NULL::int AS l, 'NaN'::float8 AS m, 12345678901234567890::numeric AS n,
       '00000000-0000-0000-0000-00000000000f'::uuid AS o, TIME '01:02:03' AS p, 'x'::char(3) AS q
"""


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_typed_values_have_the_same_text_in_every_time_zone(
    tmp_path: Path, postgres: Cluster, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("PGTZ", zone)

    take(tmp_path, postgres.url(), TYPED)

    expected = ["7", "1.5", "1" + "0" * 30, "0.1", "true", "2026-02-28", "2026-02-28T12:30:00", "2026-02-28T07:30:00+00:00"]
    expected += ['["x", null, "y"]', '{"a": null, "b": [1, 2.5]}', "x", None, None, "12345678901234567890"]
    assert rows(tmp_path) == {(*expected, "00000000-0000-0000-0000-00000000000f", "01:02:03", "x  ")}


def test_query_cannot_write(tmp_path: Path, address: str, postgres: Cluster) -> None:
    insert = "INSERT INTO tickets VALUES (5, 'x', 'y') RETURNING id, text, label"
    for query in (insert, "DELETE FROM tickets", "CREATE TABLE other (a int)", f"{QUERY}; DROP TABLE tickets"):
        with pytest.raises(BadSource, match=r"the database refuses snapshot\.query") as caught:
            take(tmp_path, address, query)
        assert PASSWORD not in str(caught.value)
    assert take(tmp_path, address).rows == 4
    postgres.run("postgres", "CREATE SEQUENCE IF NOT EXISTS numbers")
    with pytest.raises(BadSource, match="cannot execute nextval"):
        take(tmp_path, postgres.url(), "SELECT nextval('numbers') AS id")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT id, text, id FROM tickets", "returns the column 'id' more than once; rename one"),
        (f"{QUERY} WHERE id > 9", "snapshot.query returns no rows; expected at least one"),
        ("SELECT * FROM tickts", "the database refuses snapshot.query: .*tickts"),
        ("SELEC 1", "the database refuses snapshot.query: .*syntax error"),
        ("SELECT 1 AS one", "column 'text', mapped to text in snapshot.columns, is missing"),
        (" ", "the database refuses snapshot.query|returns no table"),
    ],
)
def test_bad_query_is_refused_and_keeps_the_snapshot(tmp_path: Path, address: str, query: str, expected: str) -> None:
    first = take(tmp_path, address)

    with pytest.raises(BadSource, match=expected) as caught:
        take(tmp_path, address, query, columns={"text": "text"})

    assert str(caught.value).startswith("sql://ticket-store: ")
    assert SnapshotManifest.read(tmp_path / "raw") == first
    assert not list(tmp_path.glob(".raw*"))


def test_database_message_is_truncated(tmp_path: Path, address: str) -> None:
    with pytest.raises(BadSource) as caught:
        take(tmp_path, address, f"SELECT {'x' * 5_000}")

    assert len(str(caught.value)) < 700


def test_bytes_are_refused_with_row_and_column(tmp_path: Path, address: str) -> None:
    value = "x'00ff'" if address.startswith("sqlite") else "'abc'::bytea"

    with pytest.raises(BadSource, match="sql://ticket-store: row 2: column 'blob' contains binary data, expected text or numbers"):
        take(tmp_path, address, f"SELECT NULL AS blob UNION ALL SELECT {value}")


def test_nul_character_is_refused_with_row_and_column(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "any.db") as connection:
        connection.execute("CREATE TABLE any (text text)")
    connection.close()

    with pytest.raises(BadSource, match="row 2: column 'text' contains a NUL character, expected text"):
        take(tmp_path, f"sqlite:///{tmp_path / 'any.db'}", "SELECT 'x' AS text UNION ALL SELECT 'a' || char(0)")


def test_query_is_required(tmp_path: Path) -> None:
    with pytest.raises(BadParams, match=r"snapshot\.query is missing for sql://ticket-store"):
        take(tmp_path, "sqlite://", None)


def test_description_names_the_columns(tmp_path: Path, address: str) -> None:
    settings = SnapshotParams(source="sql://t", query=QUERY)

    description = describe_source(tmp_path, snapshot=settings, environment={"RETUNE_SQL_T": address})

    assert description == f"connected to {address[: address.index('+') if '+' in address else 6]}; the query returns id, text, label"


def test_postgresql_rows_are_read_in_one_transaction(tmp_path: Path, postgres: Cluster) -> None:
    name = postgres.new_database()
    query = "SELECT current_setting('transaction_isolation') AS text, current_setting('transaction_read_only') AS label"

    take(tmp_path, postgres.url(name), query)

    assert rows(tmp_path) == {("repeatable read", "on")}


# Invalid URLs: messages never contain them


INVALID_URLS = [
    ("", BadSource, "the environment variable RETUNE_SQL_TICKET_STORE is missing: expected a SQLAlchemy URL"),
    ("hush-hush", BadSource, "the environment variable RETUNE_SQL_TICKET_STORE is invalid"),
    ("postgresql://me:hush@sh@host:port/tickets", BadSource, "is invalid: expected .* write @ : / as %40 %3A %2F"),
    ("oracle+cx_oracle://me:hush@host/tickets", BadSource, "uses oracle.cx_oracle, whose driver is not installed: .*cx_Oracle"),
    ("nonsense://me:hush@host/tickets", BadSource, "uses nonsense, whose driver is not installed"),
    ("postgresql+asyncpg://me:hush@host/tickets", BadSource, r"names the asyncio driver postgresql\+asyncpg"),
    ("postgresql://me:hush@127.0.0.1:1/tickets", Unavailable, "cannot connect to the database in RETUNE_SQL_TICKET_STORE: .*refused"),
    ("postgresql://me:hush@no-such-host.invalid/tickets", Unavailable, "cannot connect to the database .*no-such-host.invalid"),
    ("postgresql://me:hush@127.0.0.1:1/tickets?sslpassword=hush&nonsense=1", BadSource, "invalid connection option"),
    ("sqlite:///nowhere/hush.db", BadSource, "the database file nowhere/hush.db in RETUNE_SQL_TICKET_STORE does not exist"),
]


@pytest.mark.parametrize(("address", "error", "expected"), INVALID_URLS, ids=[address[:30] or "none" for address, _, _ in INVALID_URLS])
def test_bad_url_is_reported_by_the_name_of_its_variable(tmp_path: Path, address: str, error: type[RetuneError], expected: str) -> None:
    with pytest.raises(error, match=expected) as caught:
        take(tmp_path, address)

    message = "".join(traceback.format_exception(caught.value))
    assert "hush" not in message.replace("hush.db", "")
    assert not list(tmp_path.iterdir())


def test_wrong_password_or_database_is_not_worth_a_retry(tmp_path: Path, postgres: Cluster) -> None:
    for address, expected in (
        (postgres.url(password="wr:ng-hush"), "password authentication failed"),
        (postgres.url("nowhere"), 'database "nowhere" does not exist'),
    ):
        with pytest.raises(BadSource, match=expected) as caught:
            take(tmp_path, address)
        message = "".join(traceback.format_exception(caught.value))
        assert "hush" not in message
        assert PASSWORD not in message


@pytest.mark.parametrize("source", ["sql://me:hush@host/tickets", "sql://", "sql://a/b", "sql://1st"])
def test_url_as_source_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(BadParams, match=r"expected sql://NAME.*RETUNE_SQL_NAME, never in params\.yaml") as caught:
        take(tmp_path, "sqlite://", source=source)

    assert "hush" not in str(caught.value)


# Connections that fail later


def test_locked_or_lost_database_is_worth_a_retry(tmp_path: Path, postgres: Cluster, database: str) -> None:
    with sqlite3.connect(tmp_path / "locked.db", isolation_level=None) as writer:
        writer.execute("CREATE TABLE tickets (text text)")
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable, match="the database connection failed: database is locked"):
            take(tmp_path, f"sqlite:///{tmp_path / 'locked.db'}?timeout=0.1")
    writer.close()
    killed = "SELECT 'x' AS text, pg_terminate_backend(pg_backend_pid()) AS label"
    with pytest.raises(Unavailable, match=r"the database connection failed: .*(terminating|closed the) connection"):
        take(tmp_path, postgres.url(database), killed)
    with pytest.raises(Unavailable, match="the database connection failed: canceling statement due to statement timeout"):
        take(tmp_path, postgres.url(database, query={"options": "-c statement_timeout=50"}), "SELECT pg_sleep(5), 'x' AS text")
    assert not list(tmp_path.glob(".raw*"))


# VmHWM is the peak of this program alone. The steps after the database have a separate test.
LARGE = """
import os, sys
from pathlib import Path
from components.data.snapshot import SnapshotParams
from components.data.snapshot.sources import SourceRequest, sql
sql.fetch(SourceRequest(SnapshotParams(source="sql://large", query=sys.argv[2]), Path(), os.environ), Path(sys.argv[1]))
lines = Path("/proc/self/status").read_text().splitlines()
print(next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_result(tmp_path: Path, postgres: Cluster) -> None:
    query = "SELECT n AS id, repeat('the text of row ' || n || ' ', 200) AS text FROM generate_series(1, {}) AS n"
    environment = {"RETUNE_SQL_LARGE": postgres.url(), "PATH": "/usr/bin", "PYTHONPATH": ":".join(sys.path)}

    peaks = []
    for rows in (2_000, 30_000):
        command = [sys.executable, "-c", LARGE, str(tmp_path), query.format(rows)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))

    assert peaks[1] - peaks[0] < 40  # MiB, of 120 more in the result


def test_password_is_never_written(tmp_path: Path, postgres: Cluster, database: str) -> None:
    take(tmp_path, postgres.url(database))

    written = b"".join(path.read_bytes() for path in (tmp_path / "raw").iterdir())
    assert PASSWORD.encode() not in written
    assert json.loads((tmp_path / "raw/manifest.json").read_text(encoding="utf-8"))["source"] == "sql://ticket-store"
