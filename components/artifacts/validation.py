"""`data/validated/report.json`: what Great Expectations found, and what became of the rows."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from components.artifacts.base import Artifact


class Check(BaseModel):
    """One expectation and its result; `failures` counts rows for a row check and is 0 or 1 for a suite check."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    scope: Literal["row", "suite"]
    column: str | None
    passed: bool
    expected: str
    observed: str
    failures: int


class ValidationReport(Artifact):
    """The result that preprocessing requires: rows_in = kept + quarantined. `warnings` are what a person should know of the labels.

    `grouped` says whether the data came with groups; None in a report of a release that did not say.
    """

    FILE: ClassVar[str] = "report.json"

    snapshot: str
    accepted: bool
    rows_in: int
    kept: int
    quarantined: int
    reasons: dict[str, int]
    checks: tuple[Check, ...]
    grouped: bool | None = None
    warnings: tuple[str, ...] = ()
