"""What made a model: the trail from a registered version back to code, data and run."""

from typing import ClassVar

from pydantic import Field

from components.artifacts.base import Artifact


class Lineage(Artifact):
    """Where a candidate came from. `hashes` are DVC's md5 of every stage output, by path; `dirty` counts uncommitted files.

    `pseudo` counts the training rows whose label is a model's answer, by that version, NAME/VERSION.
    """

    FILE: ClassVar[str] = "lineage.json"

    model: str
    candidate: str
    git_commit: str
    dirty: int
    data_digest: str
    base_source: str
    base_digest: str
    hashes: dict[str, str]
    flow_run: str | None
    python: str
    packages: dict[str, str]
    pseudo: dict[str, int] = Field(default_factory=dict)
