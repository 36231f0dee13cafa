from collections.abc import Sequence
from pathlib import Path

import sqlalchemy

from tests.support.sources import Row, SourceCase


def create_source(folder: Path, columns: Sequence[str], rows: Sequence[Row]) -> SourceCase:
    address = f"sqlite:///{folder / 'tickets.db'}"
    engine = sqlalchemy.create_engine(address)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE IF EXISTS tickets")
        connection.exec_driver_sql(f"CREATE TABLE tickets ({', '.join(f'{name} TEXT' for name in columns)})")
        connection.exec_driver_sql(f"INSERT INTO tickets VALUES ({', '.join('?' for _ in columns)})", list(rows))
    engine.dispose()
    return SourceCase({"source": "sql://tickets", "query": "SELECT * FROM tickets"}, {"RETUNE_SQL_TICKETS": address})


def missing_source(folder: Path) -> SourceCase:
    address = f"sqlite:///{folder / 'none.db'}"
    return SourceCase({"source": "sql://none", "query": "SELECT * FROM tickets"}, {"RETUNE_SQL_NONE": address})
