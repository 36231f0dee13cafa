"""Facts for page and card, read from the artifacts of a workspace; missing artifacts are None or empty.

Reads the layout of dvc.yaml: data/raw, data/validated, data/prepared, models/tuned, models/trained, reports/evaluation.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Any

import pyarrow.parquet as pq

from components.artifacts.lineage import Lineage
from components.artifacts.manifest import SnapshotManifest
from components.artifacts.metrics import Estimate, Metrics
from components.artifacts.predictions import Predictions
from components.artifacts.profile import Profile
from components.artifacts.training import ModelSpec, Training, history_entries, read_lines
from components.artifacts.tuning_result import BestTrial, Leaderboard, Setting, Trial, read_trials
from components.artifacts.validation import ValidationReport
from components.artifacts.verdict import Verdict
from components.report.standing import Standing
from components.stats.metric_sets import MetricSet


@dataclass(frozen=True)
class ChampionFacts:
    """The champion, scored on the current test set; `differences` are candidate minus champion, paired.

    `settings` are its training settings (Training.settings), `params` all recorded parameters and `lineage` its origin; unknown ones
    are empty.
    """

    version: str
    headline: Mapping[str, Estimate]
    differences: Mapping[str, Estimate] = field(default_factory=dict)
    predictions: Predictions | None = None
    settings: Mapping[str, Setting] = field(default_factory=dict)
    data_digest: str | None = None
    params: Mapping[str, object] = field(default_factory=dict)
    lineage: Lineage | None = None

    @classmethod
    def from_predictions(
        cls, version: str, scored: Predictions, candidate: Predictions, metric_set: MetricSet, data_digest: str | None, **origin: Any
    ) -> "ChampionFacts":
        """Score a champion's predictions on the candidate's test rows, and the candidate against them.

        `origin` are `settings`, `params` and `lineage`, if known.
        """
        headline = {metric: metric_set.score(metric, scored) for metric in metric_set.shown}
        differences = {metric: metric_set.difference(metric, candidate, scored) for metric in metric_set.metrics}
        return cls(version, headline, differences, scored, data_digest=data_digest, **origin)


@dataclass(frozen=True)
class Run:
    """Facts that are not in the workspace: origin of the candidate, verdict, registered version, and champion, if any.

    `standing` is what became of the verdict; `seconds` is the duration of each step, in the order of execution; `made_at` the time of
    the report, UTC; `params` the candidate's params.yaml, to compare with those recorded with the champion.
    `tracking_uri` is the MLflow store as seen from the project, without credentials; `example` an input of the task.
    """

    lineage: Lineage
    verdict: Verdict
    version: str | None = None
    champion: ChampionFacts | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    made_at: datetime | None = None
    params: Mapping[str, object] = field(default_factory=dict)
    standing: Standing = field(default_factory=Standing)
    tracking_uri: str = "sqlite:///var/mlflow.db"
    example: Mapping[str, str] = field(default_factory=lambda: {"text": "a text to label"})

    @property
    def shows(self) -> str:
        """Key of the page: a page with the same key is up to date."""
        return f"{self.verdict.key} {self.version}"

    @property
    def usage(self) -> str:
        """Python code that loads the version and answers an example."""
        address = f"models:/{self.lineage.model}" + (f"/{self.version}" if self.version else "@champion")
        where = "  # in the folder of the project" if self.tracking_uri.startswith("sqlite") else ""
        lines = (
            "import mlflow, pandas as pd",
            "",
            f"mlflow.set_tracking_uri({json.dumps(self.tracking_uri)}){where}",
            f"model = mlflow.pyfunc.load_model({json.dumps(address)})",
            f"model.predict(pd.DataFrame([{json.dumps(dict(self.example))}]))",
        )
        return "\n".join(lines)

    @property
    def card(self) -> Mapping[str, Any]:
        """The section `card` of the candidate's params.yaml, empty where it says nothing."""
        section = self.params.get("card")
        return dict.fromkeys(("licence", "languages", "owner", "intended_use", "risk_class")) | (
            section if isinstance(section, dict) else {}
        )

    @property
    def commands(self) -> tuple[tuple[str, str], ...]:
        """Commands that rebuild, explain and roll back, with descriptions; names are quoted for the shell."""
        name, commit = quote(self.lineage.model), quote(self.lineage.git_commit[:12] or "COMMIT")
        if self.version is None:
            return ((f"git checkout {commit} && dvc repro --pull", "rebuild the same model from code and data"),)
        version, champion = quote(self.version), self.verdict.champion
        diff = [(f"retune diff {name} {quote(champion)} {version}", "show fixed and broken answers")] if champion else []
        return (
            (f"retune rebuild {name} {version}", "rebuild from commit and data, then compare weights and metrics"),
            (f"retune why {name} {version}", "show the evidence of its verdict"),
            (f"retune lineage {name} {version}", "show its origin"),
            *diff,
            (f'retune rollback {name} --why "…"', "restore the previous champion"),
            (f"retune history {name}", "list all champions, and who promoted them"),
        )


@dataclass(frozen=True)
class PageFacts:
    """All facts for page and card."""

    run: Run
    metrics: Metrics
    snapshot: SnapshotManifest | None
    validation: ValidationReport | None
    profile: Profile | None
    best: BestTrial | None
    training: Training | None
    candidate: Predictions | None
    trials: tuple[Trial, ...]
    history: tuple[Mapping[str, float], ...]
    texts: Mapping[str, str]
    conflicts: tuple[Mapping[str, str], ...]
    task: str | None = None
    leaderboard: Leaderboard | None = None


def read_facts(workspace: Path, run: Run) -> PageFacts:
    """Read the artifacts below `workspace`; raise NotFound if the metrics are missing."""
    evaluation = workspace / "reports/evaluation"
    return PageFacts(
        run=run,
        metrics=Metrics.read(evaluation),
        snapshot=SnapshotManifest.find(workspace / "data/raw"),
        validation=ValidationReport.find(workspace / "data/validated"),
        profile=Profile.find(workspace / "data/prepared"),
        best=BestTrial.find(workspace / "models/tuned"),
        training=Training.find(workspace / "models/trained"),
        candidate=Predictions.read(file) if (file := evaluation / "predictions/candidate.parquet").exists() else None,
        trials=tuple(read_trials(workspace / "models/tuned/trials.parquet")),
        history=tuple(history_entries(read_lines(workspace / "models/trained/history.jsonl"))),
        texts={row["id"]: row["text"] for row in _rows(workspace / "data/prepared/test/test.parquet", "id", "text")},
        conflicts=read_conflicts(workspace / "data/prepared/removed.parquet"),
        task=spec.task if (spec := ModelSpec.find(workspace / "models/trained/model")) else None,
        leaderboard=Leaderboard.find(workspace / "models/tuned"),
    )


def read_conflicts(file: Path) -> tuple[Mapping[str, str], ...]:
    """Read id, reason, text and label of the rows that preprocessing removed because equal texts had different labels."""
    rows = ({key: str(row.get(key) or "") for key in ("id", "reason", "text", "label")} for row in _rows(file))
    return tuple(row for row in rows if "conflict" in row["reason"])


def _rows(file: Path, *columns: str) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    return list(pq.read_table(file, columns=list(columns) or None).to_pylist())
