"""`models/tuned`: the settings chosen by the search, details of the best trial, all trials, and the leaderboard of `strategy: auto`."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
from pydantic import Field

from components.artifacts.base import Artifact, Record

Setting = float | int | str | bool | None


class TunedSettings(Artifact):
    """The settings that the search chose; without counts and times, so that equal choices give equal bytes.

    `settings` are fields of `train`, and `task_options` fields of the section of that name. `soup` lists the other members of a weight
    average, each by the fields of `train` in which it differs from `settings`.
    """

    FILE = "settings.json"

    settings: dict[str, Setting]
    task_options: dict[str, Any] = Field(default_factory=dict)
    soup: tuple[dict[str, Setting], ...] = ()


class BestTrial(Artifact):
    """The best trial of a study; `settings` as in `TunedSettings`, `carried` counts trials of earlier searches."""

    FILE = "best.json"

    study: str
    number: int
    metric: str
    value: float
    settings: dict[str, Setting]
    complete: int
    pruned: int
    failed: int
    seconds: float
    importance: dict[str, float]
    stopped_by: str
    carried: int = 0


class Candidate(Record):
    """One candidate of an automatic search.

    `settings` are chosen fields of `train`, `task_options` chosen options of the task. `score` is the mean over `holdouts` hold-outs,
    or the score on the validation split if that is 1, with its 95 % interval; None if nothing was measured. `first_score` is the score on
    the validation split alone, which all candidates share. `seconds` is the cost, `share` its part of the budget, `ended_at` the seconds
    of the budget that were spent when the candidate ended; a `carried` candidate was measured in an earlier search and cost this one
    nothing. `reason` says why it was stopped, failed or skipped, and for the winner why it won.
    """

    number: int
    name: str
    base: str
    method: str
    settings: dict[str, Setting]
    task_options: dict[str, Any]
    state: Literal["complete", "stopped", "failed", "skipped"]
    reason: str
    score: float | None
    low: float | None
    high: float | None
    holdouts: int
    seconds: float
    share: float
    ended_at: float
    first_score: float | None = None
    carried: bool = False
    winner: bool = False


class Leaderboard(Artifact):
    """The candidates of an automatic search, best first; none for another strategy.

    The winner may not be the first, because costs count. `minutes` is the budget, `seconds` what was spent. `optimism` is the winner's
    validation score minus its expected score on new rows, with its 95 % interval. `plan` is a sentence, `notes` are about candidates that
    did not fit into the budget, and the selection.
    """

    FILE = "leaderboard.json"

    metric: str
    minutes: float
    seconds: float
    validation_rows: int
    candidates: tuple[Candidate, ...] = ()
    optimism: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()
    plan: str = ""

    @property
    def winner(self) -> Candidate | None:
        """The candidate that the search chose; None if there is none."""
        return next((candidate for candidate in self.candidates if candidate.winner), None)


class TuneProgress(Artifact):
    """The progress of an automatic search while it runs; `running` names the candidate in training, at `step` of `steps`.

    `tried` counts the candidates that ended. `ended` is true after the last candidate.
    """

    FILE = "progress.json"

    metric: str
    minutes: float
    seconds_left: float
    spent: float = 0.0
    phase: str
    running: str = ""
    step: int = 0
    steps: int = 0
    tried: int = 0
    best_name: str = ""
    best_score: float | None = None
    ended: bool = False


@dataclass(frozen=True)
class Trial:
    """One trial of a search; `values` maps the step to the intermediate value of the metric."""

    number: int
    state: str
    value: float | None
    params: Mapping[str, Setting]
    seconds: float | None
    values: Mapping[int, float]


def read_trials(file: Path) -> list[Trial]:
    """Return the trials in trials.parquet by number; none if the file does not exist."""
    if not file.exists():
        return []
    trials = []
    for row in pq.read_table(file).to_pylist():
        value, seconds = (number if _is_finite(number) else None for number in (row["value"], row.get("seconds")))
        values = {int(step): float(value) for step, value in json.loads(row["intermediate"] or "{}").items() if _is_finite(value)}
        trials.append(Trial(row["number"], row["state"], value, json.loads(row["params"] or "{}"), seconds, values))
    return sorted(trials, key=lambda trial: trial.number)


def _is_finite(number: float | None) -> bool:
    return number is not None and math.isfinite(number)
