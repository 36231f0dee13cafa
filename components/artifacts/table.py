"""A table on the report page: evidence of a gate, or details of a task."""

from pydantic import BaseModel, ConfigDict


class ReportTable(BaseModel):
    """A titled table with named columns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | bool | None, ...], ...]
