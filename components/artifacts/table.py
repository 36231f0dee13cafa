"""A table that a reader is shown: behind a gate, or on the page of a task."""

from pydantic import BaseModel, ConfigDict


class ReportTable(BaseModel):
    """Numbers and texts worth reading, as rows below named columns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | bool | None, ...], ...]
