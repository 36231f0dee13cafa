"""The records of a batch scoring: plan, progress and manifest.

They contain no times, and no path except the input's: the same version and input give the same bytes.
"""

from typing import Literal, NamedTuple

from components.artifacts.base import Artifact, Record
from components.artifacts.manifest import FilePart

OnBadRow = Literal["error", "quarantine"]


class Scoring(Artifact):
    """The version that scores, and the `rows` of the input."""

    model_uri: str
    version: int
    package: str
    input: str
    input_digest: str
    inputs: dict[str, str]
    rows: int


class ScoringPlan(Scoring):
    """The plan of a scoring. `asked` is the name that was resolved to the version."""

    FILE = "progress.json"

    asked: str
    rows_per_part: int
    on_bad_row: OnBadRow
    prefix: str


class Done(Record):
    """A complete part, and the number of quarantined rows among its rows of the input."""

    part: FilePart
    quarantined: int


class RowCounts(NamedTuple):
    """The number of finished rows of the input, and how many of them were scored; the others were quarantined."""

    rows: int
    scored: int


class ScoringManifest(Scoring):
    """The result of a scoring: rows = scored + quarantined; `parts` are the files in order, none if a table was written."""

    FILE = "manifest.json"

    scored: int
    quarantined: int
    parts: tuple[FilePart, ...] = ()
    quarantine: FilePart | None = None
