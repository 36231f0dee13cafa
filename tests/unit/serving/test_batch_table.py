"""A database table as input and as output: order, types, each row once, and no secret in a message."""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.core.errors import BadInput, BadParams, BadSource, Unavailable
from components.data import sql
from components.serving.batch.rows import QUARANTINE
from components.serving.batch.table import TableTarget
from tests.support.postgres import Cluster
from tests.support.scored import FINAL, PLAN, part

NAME = "RETUNE_SQL_MY_SHOP"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE orders (region TEXT, id INTEGER, text TEXT, at TIMESTAMP, price NUMERIC(8, 2), PRIMARY KEY (region, id))"
        )
        rows = [("b", 1, "x", "2026-11-28 10:00:00", 1.25), ("a", 10, "y", None, None), ("a", 9, None, "2026-11-28 10:00:01.5", 2)]
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", rows)
        connection.execute("CREATE TABLE keyless (text TEXT)")
        connection.execute("CREATE TABLE odd (id INTEGER PRIMARY KEY, n INTEGER)")
        connection.execute("INSERT INTO odd VALUES (1, 'seven')")
    connection.close()
    return path


def address(database: Path, table: str = "scored") -> sql.TableAddress:
    return sql.parse_address(f"sql://my-shop/{table}", {NAME: f"sqlite:///{database}"})


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(database) as connection:
        result = connection.execute(query).fetchall()
    connection.close()
    return result


def test_table_is_read_in_key_order_with_its_types(database: Path, tmp_path: Path) -> None:
    sql.fetch_table(address(database, "orders"), tmp_path / "rows.parquet")
    found = pq.read_table(tmp_path / "rows.parquet")

    assert [(row["region"], row["id"]) for row in found.to_pylist()] == [("a", 9), ("a", 10), ("b", 1)]
    assert found.to_pylist()[0] == {
        "region": "a",
        "id": 9,
        "text": None,
        "at": datetime(2026, 11, 28, 10, 0, 1, 500_000),
        "price": Decimal(2),
    }
    assert found.schema.field("price").type == pa.decimal128(8, 2)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("order", "sql://my-shop/order: table 'order' does not exist; did you mean 'orders'"),
        ("keyless", "sql://my-shop/keyless has no primary key, so its rows have no reproducible order"),
        ("odd", "sql://my-shop/odd: column 'n' has a cell that is not int64"),
    ],
)
def test_unreadable_table_is_rejected(database: Path, tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(BadSource) as error:
        sql.fetch_table(address(database, table), tmp_path / "rows.parquet")

    assert str(error.value).startswith(message)


def test_no_message_contains_a_secret(tmp_path: Path) -> None:
    for invalid in ("sql://shop", "sql://u:geheim@h/a", "sql://shop/a/b"):
        with pytest.raises(BadParams, match="expected sql://NAME/TABLE, found something else") as unnamed:
            sql.parse_address(invalid, {})
    with pytest.raises(BadSource, match=f"the environment variable {NAME} is missing: expected a SQLAlchemy URL"):
        sql.parse_address("sql://my-shop/a", {})
    with pytest.raises(BadSource, match="RETUNE_SQL_SHOP is invalid") as unread:
        sql.parse_address("sql://shop/a", {"RETUNE_SQL_SHOP": "postgresql//u:geheim@h"})
    remote = sql.parse_address("sql://shop/crm.a", {"RETUNE_SQL_SHOP": "postgresql://u:geheim@127.0.0.1:1/shop?sslpassword=heimlich"})
    with pytest.raises(Unavailable, match=r"sql://shop/crm\.a: cannot connect to the database in RETUNE_SQL_SHOP: .*refused") as away:
        sql.fetch_table(remote, tmp_path / "rows.parquet")
    driverless = sql.parse_address("sql://shop/a", {"RETUNE_SQL_SHOP": "oracle+cx_oracle://u:geheim@h/d"})
    with pytest.raises(BadSource, match=r"RETUNE_SQL_SHOP uses oracle\+cx_oracle, whose driver is not installed") as unknown:
        sql.fetch_table(driverless, tmp_path / "rows.parquet")
    with pytest.raises(BadSource, match=r"the database file .* does not exist"):
        sql.fetch_table(address(tmp_path / "none.db"), tmp_path / "rows.parquet")
    with pytest.raises(BadSource, match=r"the folder of the database file .* does not exist"):
        table(tmp_path / "none/none.db").unfinished()

    messages = "".join(str(error.value) for error in (unnamed, unread, away, unknown)) + str(remote)
    assert "geheim" not in messages
    assert "heimlich" not in messages
    assert (remote.schema, remote.table) == ("crm", "a")
    assert not (tmp_path / "none.db").exists()


NONE = QUARANTINE.empty_table()


def table(database: Path) -> TableTarget:
    return TableTarget(address(database), database.parent / "locks")


def started(database: Path) -> TableTarget:
    out = table(database)
    out.begin(PLAN)
    out.resume()
    return out


def bad(*numbers: int) -> pa.Table:
    reasons = [["no text"] * len(numbers), ["in.csv"] * len(numbers), list(numbers)]
    return pa.table([pa.array(numbers, pa.int64()), *map(pa.array, reasons)], schema=QUARANTINE)


def test_rows_keep_their_numbers_and_progress_is_stored(database: Path) -> None:
    out = table(database)
    with out.locked():
        assert out.unfinished() is None
        out.begin(PLAN)
        assert out.unfinished() == PLAN
        assert out.resume() == (0, 0)
        out.add([1, 3], part(1, 3), bad(2))
        assert table(database).resume() == (3, 2)
        out.add([5], part(5), bad(4))
        assert out.finish(FINAL) == FINAL
        with pytest.raises(BadInput, match="sql://my-shop/scored is complete: 3 rows scored by models:/tickets/1; pass --replace"):
            out.unfinished()

    assert rows(database, "SELECT row_number, id, label FROM scored ORDER BY row_number") == [(1, 1, "1"), (3, 3, "3"), (5, 5, "5")]
    assert rows(database, "SELECT row_number, quarantine_reason FROM scored_quarantine") == [(2, "no text"), (4, "no text")]


def test_failed_part_leaves_no_rows_and_no_progress(database: Path) -> None:
    out = started(database)
    out.add([1, 2], part(1, 2), NONE)
    with pytest.raises(Unavailable, match="another process wrote here meanwhile"):
        out.add([3, 2], part(3, 2), NONE)

    assert rows(database, "SELECT row_number FROM scored") == [(1,), (2,)]
    assert table(database).resume() == (2, 2)


def test_concurrent_writer_of_another_machine_is_detected(database: Path) -> None:
    out, other = started(database), table(database)
    other.resume()
    other.add([1, 2], part(1, 2), NONE)
    with pytest.raises(Unavailable, match="another process wrote here meanwhile"):
        out.add([1, 2], part(1, 2), NONE)

    assert rows(database, "SELECT count(*) FROM scored") == [(2,)]


def test_table_is_locked_on_one_machine(database: Path) -> None:
    with table(database).locked(), pytest.raises(Unavailable, match="another process is scoring into this table"), table(database).locked():
        pass


def test_busy_database_is_unavailable(database: Path) -> None:
    out = TableTarget(sql.parse_address("sql://my-shop/scored", {NAME: f"sqlite:///{database}?timeout=0.1"}), database.parent)
    out.begin(PLAN)
    out.resume()
    with sqlite3.connect(database) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable, match="the database connection failed: database is locked"):
            out.add([1], part(1), NONE)
    other.close()
    out.add([1], part(1), NONE)
    assert rows(database, "SELECT count(*) FROM scored") == [(1,)]


def test_table_of_another_program_is_kept(database: Path) -> None:
    out = TableTarget(address(database, "orders"), database.parent)
    for call in (out.unfinished, out.clear):
        with pytest.raises(BadInput, match="sql://my-shop/orders exists, and `retune score` did not write it"):
            call()
    assert rows(database, "SELECT count(*) FROM orders") == [(3,)]


@pytest.mark.parametrize("change", ["DELETE FROM scored WHERE row_number = 1", "DROP TABLE scored"])
def test_changed_table_is_not_resumed(database: Path, change: str) -> None:
    out = started(database)
    out.add([1, 2], part(1, 2), NONE)
    rows(database, change)
    with pytest.raises(BadInput, match=r"sql://my-shop/scored has [01] rows, but 2 were written; pass --replace to start again"):
        out.unfinished()


def test_replacing_removes_both_tables_after_a_kill(database: Path) -> None:
    out = started(database)
    out.add([1], part(1), bad(2))
    with sqlite3.connect(database) as connection:  # state after a kill after the first step
        connection.execute("UPDATE retune_scores SET rows_done = -1, scored = 0")
    connection.close()
    with pytest.raises(BadInput, match="an earlier --replace was interrupted; pass --replace"):
        out.unfinished()

    out.clear()
    assert out.unfinished() is None
    assert rows(database, "SELECT name FROM sqlite_master WHERE name LIKE 'scored%'") == []


CELLS: Sequence[tuple[pa.DataType, Any, Any]] = [
    (pa.bool_(), True, 1),
    (pa.int8(), -7, -7),
    (pa.uint64(), 2**64 - 1, str(2**64 - 1)),
    (pa.float32(), 0.5, 0.5),
    (pa.decimal128(6, 2), Decimal("1.25"), 1.25),
    (pa.timestamp("ms", "+02:00"), datetime(2026, 11, 28, 12, tzinfo=UTC), "2026-11-28 12:00:00.000000"),
    (pa.date32(), date(2026, 11, 28), "2026-11-28"),
    (pa.binary(), b"\xff", b"\xff"),
    (pa.list_(pa.string()), ["a", "ä"], '["a", "ä"]'),
    (pa.struct([("a", pa.int64())]), {"a": 1}, '{"a": 1}'),
    (pa.map_(pa.string(), pa.float64()), [("a", 0.5)], '{"a": 0.5}'),
    (pa.string(), None, None),
]


def test_every_parquet_type_can_be_written(database: Path) -> None:
    columns = {f"c{number}": pa.array([cell], dtype) for number, (dtype, cell, _) in enumerate(CELLS)}
    out = started(database)
    out.add([1], pa.table(columns), NONE)

    assert rows(database, f"SELECT {', '.join(columns)} FROM scored") == [tuple(stored for _, _, stored in CELLS)]


@pytest.mark.slow
def test_postgresql_keeps_types_and_order_and_parts_once(postgres: Cluster, tmp_path: Path) -> None:
    name = postgres.new_database()
    orders = "id bigint, region text, text text, at timestamptz, price numeric(8, 2), more jsonb, PRIMARY KEY (region, id)"
    values = """(2, 'a', 'x', '2026-11-28 12:00+02', 1.25, '{"n": [1]}'), (1, 'b', 'y', NULL, NULL, NULL), (1, 'a', NULL, NULL, 2, '7')"""
    postgres.run(name, "CREATE SCHEMA crm", f"CREATE TABLE crm.orders ({orders})", f"INSERT INTO crm.orders VALUES {values}")
    environment = {NAME: postgres.url(name, drivername="postgresql")}
    sql.fetch_table(sql.parse_address("sql://my-shop/crm.orders", environment), tmp_path / "rows.parquet")
    found = pq.read_table(tmp_path / "rows.parquet")
    assert found.select(["id", "region"]).to_pylist() == [{"id": 1, "region": "a"}, {"id": 2, "region": "a"}, {"id": 1, "region": "b"}]

    out, other = (TableTarget(sql.parse_address("sql://my-shop/crm.scored", environment), tmp_path) for _ in range(2))
    out.begin(PLAN)
    for target in (out, other):
        target.resume()
    out.add([1, 2, 3], found, bad(4))
    with pytest.raises(Unavailable, match="another process wrote here meanwhile"):
        other.add([1, 2, 3], found, NONE)
    assert out.resume() == (4, 3)
    postgres.run(name, "DROP TABLE crm.orders", "ALTER TABLE crm.scored RENAME TO orders")
    sql.fetch_table(sql.parse_address("sql://my-shop/crm.orders", environment), tmp_path / "back.parquet")

    assert pq.read_table(tmp_path / "back.parquet").drop_columns("row_number").equals(found)
