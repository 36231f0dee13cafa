"""`data/raw/manifest.json` and `data/base/manifest.json`: what a snapshot holds, by content hash."""

from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from components.artifacts.base import Artifact
from components.core.errors import NotFound

MAIN = "model"
"""What `train.base` calls the base model of `base.model`."""
OTHERS = "others"
"""The folder within data/base, and within what is encoded for a base, that has a folder for each of `base.others`."""


class FilePart(BaseModel):
    """One file of a snapshot."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sha256: str
    bytes: int
    rows: int | None = None


class SnapshotManifest(Artifact):
    """A snapshot of a table: the same rows in any order have the same `digest`; `taken_at` is when it was first seen."""

    FILE: ClassVar[str] = "manifest.json"

    source: str
    format: str
    rows: int
    columns: tuple[str, ...]
    source_columns: dict[str, str]
    parts: tuple[FilePart, ...]
    digest: str
    taken_at: str


class BaseManifest(Artifact):
    """A base model pinned into a folder: where it came from and the hash of every file."""

    FILE: ClassVar[str] = "manifest.json"

    source: str
    parts: tuple[FilePart, ...]
    digest: str
    taken_at: str


def base_folder(base: Path, name: str) -> Path:
    """Return the folder of the base model called `name` within data/base.

    Raises:
        NotThere: there is none of that name.
    """
    if name == MAIN:
        return base
    folder = base / OTHERS / name
    if not folder.is_dir():
        raise NotFound(f"{folder} is missing: base.others of params.yaml names it, and `retune snapshot` or `retune run` pins it")
    return folder


def base_names(base: Path) -> list[str]:
    """Return the names of the base models within data/base, the main one first."""
    others = base / OTHERS
    return [MAIN, *(sorted(path.name for path in others.iterdir()) if others.is_dir() else [])]
