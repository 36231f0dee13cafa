"""`reports/verdict.json`: what the gates decided, and on which evidence."""

from enum import StrEnum
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from components.artifacts.base import Artifact


class Outcome(StrEnum):
    """PASS promotes, FAIL keeps the champion, INCONCLUSIVE asks a human."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


class GateResult(BaseModel):
    """One gate's outcome: an estimate with its interval against a threshold, and a reason that names the setting to change.

    `estimate`, `low`, `high` and `threshold` are in the metric's own unit; None where the gate had nothing to measure.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    gate: str
    outcome: Outcome
    reason: str
    metric: str | None = None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    threshold: float | None = None
    n: int | None = None
    method: str | None = None


class Verdict(Artifact):
    """All gates folded into one outcome, bound to the candidate, the champion, the test set and the gates' settings.

    `key` is the hash of those four: a verdict with the same key need not be reached again.
    """

    FILE: ClassVar[str] = "verdict.json"

    key: str
    candidate: str
    champion: str | None
    test_digest: str
    outcome: Outcome
    reason: str
    gates: tuple[GateResult, ...]
