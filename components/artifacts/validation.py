"""`data/validated/report.json`: the checks of Great Expectations and the row counts."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from components.artifacts.base import Artifact


class Check(BaseModel):
    """One expectation and its result; `failures` counts rows for a row check, and is 0 or 1 for a suite check."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    scope: Literal["row", "suite"]
    column: str | None
    passed: bool
    expected: str
    observed: str
    failures: int


class ValidationReport(Artifact):
    """The validation result, which preprocessing requires: rows_in = kept + quarantined. `warnings` are about the labels.

    `grouped`: the data has groups; None in reports of earlier releases.
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
