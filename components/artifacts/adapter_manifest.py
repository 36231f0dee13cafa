"""`models/trained/adapter/adapter.json`: of which base a stored adapter makes which model."""

from typing import ClassVar

from components.artifacts.base import Artifact
from components.artifacts.manifest import FilePart


class AdapterManifest(Artifact):
    """A model as its base and what was learnt: enough to find the base, to tell it from any other, and to know the model when it is whole.

    `source` and `base` are what `data/base/manifest.json` says; `weights_sha256` is that of the merged model.safetensors; `files` are the
    sha256 of the files beside this one, by path.
    """

    FILE: ClassVar[str] = "adapter.json"

    source: str
    base: tuple[FilePart, ...]
    weights_sha256: str
    files: dict[str, str]
