"""`models/trained/adapter/adapter.json`: the base model of a stored adapter and the merged model."""

from components.artifacts.base import Artifact
from components.artifacts.manifest import FilePart


class AdapterManifest(Artifact):
    """A model stored as base and adapter: identifies the base, and verifies the merged model.

    `source` and `base` are copied from `data/base/manifest.json`; `weights_sha256` is the hash of the merged model.safetensors; `files`
    maps the path of each file next to this one to its sha256.
    """

    FILE = "adapter.json"

    source: str
    base: tuple[FilePart, ...]
    weights_sha256: str
    files: dict[str, str]
