"""`lineage.json`: code, data and run that a registered version was made from."""

from pydantic import Field

from components.artifacts.base import Artifact


class Lineage(Artifact):
    """The origin of a candidate. `hashes` maps each stage output to DVC's md5.

    `dirty` counts uncommitted files, `dirty_code` those of `components` and `dvc.yaml`.
    `pseudo` counts pseudo-labelled training rows by the version that labelled them, NAME/VERSION.
    """

    FILE = "lineage.json"

    model: str
    candidate: str
    git_commit: str
    dirty: int
    dirty_code: int = 0
    data_digest: str
    base_source: str
    base_digest: str
    hashes: dict[str, str]
    flow_run: str | None
    python: str
    packages: dict[str, str]
    pseudo: dict[str, int] = Field(default_factory=dict)

    @property
    def tags(self) -> dict[str, object]:
        """The tags of its run and its version in MLflow."""
        names = ("candidate", "git_commit", "dirty", "data_digest", "base_source", "base_digest", "flow_run")
        return {f"retune.{name}": getattr(self, name) for name in names}
