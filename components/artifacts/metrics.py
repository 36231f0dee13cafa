"""`reports/evaluation/metrics.json`: the scores of the candidate and its baselines on the test split."""

from collections.abc import Collection, Mapping

from pydantic import Field

from components.artifacts.base import Artifact, Record
from components.artifacts.table import ReportTable

MIN_GROUPS = 50
"""With fewer groups of unequal size no tested interval kept its level."""


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
    `validation` are the metrics of each baseline on the validation rows, by which the best one is chosen without test rows. `method` is
    the training method of the candidate, empty if unknown: a linear probe is not compared with the baseline of that name.
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
    validation: dict[str, dict[str, float]] = Field(default_factory=dict)
    method: str = ""
    classes: dict[str, ClassScore] = Field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    brier: Estimate | None = None
    ece: float | None = None
    ece_debiased: float | None = None
    reliability: tuple[CalibrationBin, ...] = ()
    tables: tuple[ReportTable, ...] = ()
    says: dict[str, str] = Field(default_factory=dict)

    def best_baseline(self, metric: str) -> str | None:
        """Return the baseline that is best on validation; the last one if that is unknown, None without baselines.

        The baseline that is the candidate's own method is left out.
        """
        best = best_on_validation(self.validation, metric, without=[self.method])
        return best or next((name for name in reversed(self.baselines) if name != self.method), None)


def best_on_validation(scores: Mapping[str, Mapping[str, float]], metric: str, without: Collection[str] = ()) -> str | None:
    """Return the baseline with the highest `metric` in `Metrics.validation`, on ties the last; None if none has a score."""
    values = {name: own[metric] for name, own in scores.items() if metric in own and name not in without}
    return max(reversed(values), key=values.__getitem__, default=None)
