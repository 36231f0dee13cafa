"""The records of a batch scoring: what was begun, what of it is done, and what stands at the end.

They hold no times, and no path but the input's: the same version and the same input give the same bytes.
"""

from typing import ClassVar, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from components.artifacts.base import Artifact
from components.artifacts.manifest import FilePart

OnBadRow = Literal["error", "quarantine"]


class ScoringPlan(Artifact):
    """What was begun: who answers which rows, and how. `asked` is the name that was resolved to the version, `rows` counts the input."""

    FILE: ClassVar[str] = "progress.json"

    asked: str
    model_uri: str
    version: int
    package: str
    input: str
    input_digest: str
    rows: int
    inputs: dict[str, str]
    rows_per_part: int
    on_bad_row: OnBadRow
    prefix: str


class Done(BaseModel):
    """A part that is whole, and how many rows of its share of the input went to quarantine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    part: FilePart
    quarantined: int


class RowCounts(NamedTuple):
    """How many rows of the input are done, and how many of these were scored; the others went to quarantine."""

    rows: int
    scored: int


class ScoringManifest(Artifact):
    """What stands at the end: rows = scored + quarantined; `parts` are the files in their order, none where a table was written."""

    FILE: ClassVar[str] = "manifest.json"

    model_uri: str
    version: int
    package: str
    input: str
    input_digest: str
    inputs: dict[str, str]
    rows: int
    scored: int
    quarantined: int
    parts: tuple[FilePart, ...] = ()
    quarantine: FilePart | None = None
