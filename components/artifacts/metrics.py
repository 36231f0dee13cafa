"""`reports/evaluation/metrics.json`: the scores of the candidate and its baselines on the test split."""

from pydantic import Field

from components.artifacts.base import Artifact, Record
from components.artifacts.table import ReportTable


class Estimate(Record):
    """A value with its two-sided interval of level `confidence`; `n` counts the independent units (groups, or rows without groups).

    `doubt` is the reason why no gate may decide on the interval; None if it may.
    """

    value: float
    low: float
    high: float
    n: int
    method: str
    confidence: float = 0.95
    doubt: str | None = None


class ClassScore(Record):
    """Scores of one label; `eligible`: it has enough test rows or groups to count in macro-F1."""

    precision: float
    recall: float
    f1: float
    rows: int
    groups: int
    eligible: bool


class CalibrationBin(Record):
    """One bin of the reliability diagram."""

    confidence: float
    accuracy: float
    rows: int


class Metrics(Artifact):
    """Headline metrics, paired differences to each baseline (candidate minus baseline), and details.

    Classes and calibration exist for classification tasks only; `tables` are added by the task; `says` describes each metric.
    `model_digest`, `snapshot` and `test_digest` identify the model folder, the raw data and the test rows.
    """

    FILE = "metrics.json"

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
