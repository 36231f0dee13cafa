"""`manifest.json` in data/raw and data/base, and `adapter.json` in models/trained/adapter: the files of a folder, with hashes."""

from pathlib import Path

from components.artifacts.base import Artifact, Record
from components.core.errors import NotFound

MAIN = "model"
"""The name of `base.model` in `train.base`."""
OTHERS = "others"
"""The folder with one folder for each of `base.others`, in data/base and in the encoded data of a base."""


class FilePart(Record):
    """One file of a snapshot."""

    name: str
    sha256: str
    bytes: int
    rows: int | None = None


class SnapshotManifest(Artifact):
    """A snapshot of a table: the same rows in any order have the same `digest`; `taken_at` is the time of its first occurrence."""

    FILE = "manifest.json"

    source: str
    format: str
    rows: int
    columns: tuple[str, ...]
    source_columns: dict[str, str]
    parts: tuple[FilePart, ...]
    digest: str
    taken_at: str


class BaseManifest(Artifact):
    """A base model pinned in a folder: its source and the hash of every file."""

    FILE = "manifest.json"

    source: str
    parts: tuple[FilePart, ...]
    digest: str
    taken_at: str


class AdapterManifest(Artifact):
    """A model stored as base and adapter: identifies the base, and verifies the merged model.

    `source` and `base` are copied from `data/base/manifest.json`; `weights_sha256` is the hash of the merged model.safetensors; `files`
    maps the path of each other file in its folder to its sha256.
    """

    FILE = "adapter.json"

    source: str
    base: tuple[FilePart, ...]
    weights_sha256: str
    files: dict[str, str]


def base_folder(base: Path, name: str) -> Path:
    """Return the folder of the base model `name` in data/base.

    Raises:
        NotFound: the folder does not exist.
    """
    if name == MAIN:
        return base
    folder = base / OTHERS / name
    if not folder.is_dir():
        raise NotFound(f"{folder} is missing: base.others of params.yaml names it, and `retune snapshot` or `retune run` pins it")
    return folder


def base_names(base: Path) -> list[str]:
    """Return the names of the base models in data/base, the main one first."""
    others = base / OTHERS
    return [MAIN, *(sorted(path.name for path in others.iterdir()) if others.is_dir() else [])]
