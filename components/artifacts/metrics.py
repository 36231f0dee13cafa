"""`reports/evaluation/metrics.json`: the scores of the candidate and its baselines on the test split."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field

from components.artifacts.base import Artifact
from components.artifacts.table import ReportTable


class Estimate(BaseModel):
    """A number with its two-sided interval; `n` counts the independent units (groups where there are groups).

    `confidence` is the interval's level. `doubt` says why the interval must not decide anything; None where it may.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    low: float
    high: float
    n: int
    method: str
    confidence: float = 0.95
    doubt: str | None = None


class ClassScore(BaseModel):
    """Scores of one label; `eligible` says whether it has enough test rows or groups to enter macro-F1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    precision: float
    recall: float
    f1: float
    rows: int
    groups: int
    eligible: bool


class CalibrationBin(BaseModel):
    """One bin of the reliability diagram."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    confidence: float
    accuracy: float
    rows: int


class Metrics(Artifact):
    """Headline numbers, differences to each baseline (candidate minus baseline, paired), and what there is beyond them.

    Classes and calibration are those of tasks whose answers are classes; `tables` are what the task adds. `says` explains each metric.

    `model_digest`, `snapshot` and `test_digest` say of which model folder, which raw data and which test rows.
    """

    FILE: ClassVar[str] = "metrics.json"

    rows: int
    groups: int
    test_digest: str
    snapshot: str
    model_digest: str
    headline: dict[str, Estimate]
    baselines: dict[str, dict[str, Estimate]]
    differences: dict[str, dict[str, Estimate]]
    classes: dict[str, ClassScore] = Field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    brier: Estimate | None = None
    ece: float | None = None
    ece_debiased: float | None = None
    reliability: tuple[CalibrationBin, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    says: dict[str, str] = Field(default_factory=dict)
