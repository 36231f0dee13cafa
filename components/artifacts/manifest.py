"""`data/raw/manifest.json` and `data/base/manifest.json`: what a snapshot holds, by content hash."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from components.artifacts.base import Artifact


class Part(BaseModel):
    """One file of a snapshot."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sha256: str
    bytes: int
    rows: int | None = None


class Manifest(Artifact):
    """A snapshot of a table: the same rows in any order have the same `digest`; `taken_at` is when it was first seen."""

    FILE: ClassVar[str] = "manifest.json"

    source: str
    format: str
    rows: int
    columns: tuple[str, ...]
    source_columns: dict[str, str]
    parts: tuple[Part, ...]
    digest: str
    taken_at: str


class BaseManifest(Artifact):
    """A base model pinned into a folder: where it came from and the hash of every file."""

    FILE: ClassVar[str] = "manifest.json"

    source: str
    parts: tuple[Part, ...]
    digest: str
    taken_at: str
