from collections.abc import Sequence
from pathlib import Path

import sqlalchemy

from tests.support.sources import Place, Row


def put(folder: Path, columns: Sequence[str], rows: Sequence[Row]) -> Place:
    address = f"sqlite:///{folder / 'tickets.db'}"
    engine = sqlalchemy.create_engine(address)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS tickets")
        connection.exec_driver_sql(f"CREATE TABLE tickets ({', '.join(f'{name} TEXT' for name in columns)})")
        connection.exec_driver_sql(f"INSERT INTO tickets VALUES ({', '.join('?' for _ in columns)})", list(rows))
    engine.dispose()
    return Place({"source": "sql://tickets", "query": "SELECT * FROM tickets"}, {"RETUNE_SQL_TICKETS": address})


def nowhere(folder: Path) -> Place:
    address = f"sqlite:///{folder / 'none.db'}"
    return Place({"source": "sql://none", "query": "SELECT * FROM tickets"}, {"RETUNE_SQL_NONE": address})
