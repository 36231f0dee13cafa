"""`data/validated/report.json`: the checks of Great Expectations and the row counts."""

from typing import Literal

from components.artifacts.base import Artifact, Record


class Check(Record):
    """One expectation and its result; `failures` counts rows for a row check, and is 0 or 1 for a suite check."""

    name: str
    scope: Literal["row", "suite"]
    column: str | None = None
    passed: bool
    expected: str
    observed: str
    failures: int


class ValidationReport(Artifact):
    """The validation result, which preprocessing requires: rows_in = kept + quarantined. `warnings` are about the labels.

    `grouped`: the data has groups; None in reports of earlier releases.
    """

    FILE = "report.json"

    snapshot: str
    accepted: bool
    rows_in: int
    kept: int
    quarantined: int
    reasons: dict[str, int]
    checks: tuple[Check, ...]
    grouped: bool | None = None
    warnings: tuple[str, ...] = ()
