"""`models/tuned`: the settings chosen by the search, details of the best trial, and all trials."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from components.artifacts.base import Artifact

Setting = float | int | str | bool | None


class TunedSettings(Artifact):
    """The tuned fields of `train`; without counts and times, so that equal settings give equal bytes."""

    FILE = "settings.json"

    settings: dict[str, Setting]


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
