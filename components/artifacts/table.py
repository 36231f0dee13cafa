"""A table on the report page: evidence of a gate, or details of a task."""

from components.artifacts.base import Record


class ReportTable(Record):
    """A titled table with named columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | bool | None, ...], ...]
