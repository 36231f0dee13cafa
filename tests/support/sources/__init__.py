"""Build a small data set in each source; one module per source."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

Row = tuple[str | None, ...]


@dataclass(frozen=True)
class SourceCase:
    """The section `snapshot` of a source and the environment variables that it needs."""

    settings: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)


def create_source(source: str, folder: Path, columns: Sequence[str], rows: Sequence[Row]) -> SourceCase:
    """Write the rows, which may contain nulls, to a new source; local files go to `folder`."""
    case: SourceCase = importlib.import_module(f"tests.support.sources.{source}").create_source(folder, columns, rows)
    return case


def missing_source(source: str, folder: Path) -> SourceCase:
    """Return the case of a source that does not exist."""
    case: SourceCase = importlib.import_module(f"tests.support.sources.{source}").missing_source(folder)
    return case
