"""Facts for page and card, read from the artifacts of a workspace; missing artifacts are None or empty.

Reads the layout of dvc.yaml: data/raw, data/validated, data/prepared, models/tuned, models/trained, reports/evaluation.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

import pyarrow.parquet as pq

from components.artifacts.base import Artifact
from components.artifacts.lineage import Lineage
from components.artifacts.manifest import SnapshotManifest
from components.artifacts.metrics import Estimate, Metrics
from components.artifacts.predictions import Predictions
from components.artifacts.profile import Profile
from components.artifacts.training import ModelSpec, Training
from components.artifacts.tuning_result import BestTrial
from components.artifacts.validation import ValidationReport
from components.artifacts.verdict import Verdict
from components.core.errors import NotFound
from components.stats.metric_sets import MetricSet

Setting = float | int | str | bool | None
A = TypeVar("A", bound=Artifact)


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
    def of(
        cls, version: str, scored: Predictions, candidate: Predictions, metric_set: MetricSet, data_digest: str | None, **origin: Any
    ) -> "ChampionFacts":
        """Score a champion's predictions on the candidate's test rows, and the candidate against them.

        `origin` are `settings`, `params` and `lineage`, if known.
        """
        headline = {metric: metric_set.score(metric, scored) for metric in metric_set.shown}
        differences = {metric: metric_set.difference(metric, candidate, scored) for metric in metric_set.metrics}
        return cls(version, headline, differences, scored, data_digest=data_digest, **origin)


@dataclass(frozen=True)
class TrialSummary:
    """One trial of the search; `intermediate` are the values for the pruner, by step."""

    number: int
    state: str
    value: float | None
    params: Mapping[str, Setting]
    seconds: float | None
    intermediate: Mapping[int, float]


@dataclass(frozen=True)
class Removed:
    """A row that preprocessing removed, and the reason."""

    id: str
    reason: str
    text: str
    label: str


@dataclass(frozen=True)
class Run:
    """Facts that are not in the workspace: origin of the candidate, verdict, and champion."""

    lineage: Lineage
    verdict: Verdict
    version: str | None = None
    champion: ChampionFacts | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    made_at: datetime | None = None
    params: Mapping[str, object] = field(default_factory=dict)

    @property
    def shows(self) -> str:
        """Key of the page: a page with the same key is up to date."""
        return f"{self.verdict.key} {self.version}"

    @property
    def commands(self) -> tuple[tuple[str, str], ...]:
        """Commands that rebuild, explain and roll back, with descriptions; names are quoted for the shell."""
        name, commit = quote(self.lineage.model), quote(self.lineage.git_commit[:12] or "COMMIT")
        if self.version is None:
            return ((f"git checkout {commit} && dvc repro --pull", "rebuild the same model from code and data"),)
        version = quote(self.version)
        return (
            (f"retune rebuild {name} {version}", "rebuild from commit and data, then compare weights and metrics"),
            (f"retune why {name} {version}", "show the evidence of its verdict"),
            (f"retune lineage {name} {version}", "show its origin"),
            *(
                [(f"retune diff {name} {quote(self.verdict.champion)} {version}", "show fixed and broken answers")]
                if self.verdict.champion
                else []
            ),
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
    trials: tuple[TrialSummary, ...]
    history: tuple[Mapping[str, float], ...]
    texts: Mapping[str, str]
    conflicts: tuple[Removed, ...]
    task: str | None = None


def read_facts(workspace: Path, run: Run) -> PageFacts:
    """Read the artifacts below `workspace`.

    Raises:
        NotFound: the metrics are missing.
    """
    evaluation = workspace / "reports/evaluation"
    return PageFacts(
        run=run,
        metrics=Metrics.read(evaluation),
        snapshot=_optional(SnapshotManifest, workspace / "data/raw"),
        validation=_optional(ValidationReport, workspace / "data/validated"),
        profile=_optional(Profile, workspace / "data/prepared"),
        best=_optional(BestTrial, workspace / "models/tuned"),
        training=_optional(Training, workspace / "models/trained"),
        candidate=_candidate(evaluation / "predictions/candidate.parquet"),
        trials=read_trials(workspace / "models/tuned/trials.parquet"),
        history=read_history(workspace / "models/trained/history.jsonl"),
        texts={row["id"]: row["text"] for row in _rows(workspace / "data/prepared/test/test.parquet", "id", "text")},
        conflicts=read_conflicts(workspace / "data/prepared/removed.parquet"),
        task=spec.task if (spec := _optional(ModelSpec, workspace / "models/trained/model")) else None,
    )


def read_trials(file: Path) -> tuple[TrialSummary, ...]:
    """Read the trials in the order of their numbers; none if the file does not exist."""
    trials = [
        TrialSummary(
            number=at if (number := _float(row.get("number"))) is None else int(number),
            state=str(row.get("state") or "COMPLETE").rsplit(".", 1)[-1].upper(),
            value=_float(row.get("value")),
            params=_json(row.get("params")),
            seconds=_float(row.get("seconds")),
            intermediate={int(step): value for step, value in _json(row.get("intermediate")).items() if _float(value) is not None},
        )
        for at, row in enumerate(_rows(file))
    ]
    return tuple(sorted(trials, key=lambda trial: trial.number))


def read_history(file: Path) -> tuple[Mapping[str, float], ...]:
    """Read the lines of a training history, without a truncated line of an interrupted training."""
    if not file.exists():
        return ()
    entries = (_json(line) for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
    numbers = ({key: value for key, raw in entry.items() if (value := _float(raw)) is not None} for entry in entries)
    return tuple(entry for entry in numbers if "step" in entry)


def read_conflicts(file: Path) -> tuple[Removed, ...]:
    """Read the rows that preprocessing removed because equal texts had different labels."""
    rows = (Removed(*(str(row.get(key) or "") for key in ("id", "reason", "text", "label"))) for row in _rows(file))
    return tuple(row for row in rows if "conflict" in row.reason)


def _optional(artifact: type[A], folder: Path) -> A | None:
    try:
        return artifact.read(folder)
    except NotFound:
        return None


def _candidate(file: Path) -> Predictions | None:
    return Predictions.read(file) if file.exists() else None


def _rows(file: Path, *columns: str) -> list[dict[str, Any]]:
    if not file.exists():
        return []
    rows: list[dict[str, Any]] = pq.read_table(file, columns=list(columns) or None).to_pylist()
    return rows


def _json(text: object) -> dict[str, Any]:
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _float(value: object) -> float | None:
    """Return a finite number, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if value == value and abs(value) != float("inf") else None
