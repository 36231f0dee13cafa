"""A little data in each kind of source; one module a source."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

Row = tuple[str | None, ...]


@dataclass(frozen=True)
class Place:
    """Where the data lie: the section `snapshot`, and the variables of the environment that it takes to reach them."""

    settings: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)


def put(source: str, folder: Path, columns: Sequence[str], rows: Sequence[Row]) -> Place:
    """Put the rows into a new source of this kind, which keeps its files, if it has any, in `folder`; it may have a null."""
    place: Place = importlib.import_module(f"tests.support.sources.{source}").put(folder, columns, rows)
    return place


def nowhere(source: str, folder: Path) -> Place:
    """Return a place where nothing lies."""
    place: Place = importlib.import_module(f"tests.support.sources.{source}").nowhere(folder)
    return place
