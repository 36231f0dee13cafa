"""Read the outputs of the stages as params, metrics and trials of MLflow runs."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from components.artifacts.metrics import Estimate, Metrics
from components.artifacts.profile import Profile
from components.artifacts.training import Training
from components.artifacts.tuning_result import BestTrial
from components.artifacts.validation import ValidationReport


@dataclass(frozen=True)
class RunFacts:
    """Flat params and metrics of one run."""

    params: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """One number of a training history; `at` is milliseconds since 1970, None if the line has no time."""

    name: str
    value: float
    step: int
    at: int | None


@dataclass(frozen=True)
class TrialRecord:
    """One tuning trial; `values` maps the step to the intermediate value of the objective."""

    number: int
    state: str
    value: float | None
    params: dict[str, object]
    values: dict[int, float]
    metrics: dict[str, float]


def flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested settings with dotted names; lists and empty mappings are kept as values."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def with_interval(name: str, estimate: Estimate) -> dict[str, float]:
    """Return the estimate as three metrics: NAME, NAME_low and NAME_high."""
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def headline(metrics: Metrics) -> dict[str, float]:
    """Return the candidate's scores, its calibration and its differences to the baselines, with intervals."""
    values: dict[str, float] = {}
    brier = {"brier": metrics.brier} if metrics.brier else {}
    for name, estimate in (metrics.headline | brier).items():
        values |= with_interval(name, estimate)
    for baseline, scores in metrics.baselines.items():
        values |= {f"{baseline}.{name}": estimate.value for name, estimate in scores.items()}
    for baseline, differences in metrics.differences.items():
        for name, estimate in differences.items():
            values |= with_interval(f"{name}_over_{baseline}", estimate)
    errors = {name: error for name, error in (("ece", metrics.ece), ("ece_debiased", metrics.ece_debiased)) if error is not None}
    return values | errors | {"test_rows": metrics.rows}


def stage_facts(workspace: Path) -> dict[str, RunFacts]:
    """Read the facts of each stage; raise NotFound if a stage has not run."""
    report = ValidationReport.read(workspace / "data/validated")
    profile = Profile.read(workspace / "data/prepared")
    best = BestTrial.read(workspace / "models/tuned")
    training = Training.read(workspace / "models/trained")
    metrics = Metrics.read(workspace / "reports/evaluation")
    return {
        "validate": _validate(report),
        "preprocess": _preprocess(profile),
        "tune": _tune(best),
        "train": _train(training),
        "evaluate": RunFacts({"test_digest": metrics.test_digest, "left_out": list(metrics.left_out)}, headline(metrics)),
    }


def _validate(report: ValidationReport) -> RunFacts:
    counts = {"rows_in": report.rows_in, "kept": report.kept, "quarantined": report.quarantined}
    failed = sum(not check.passed for check in report.checks)
    return RunFacts(
        {"snapshot": report.snapshot, "accepted": report.accepted, "reasons": report.reasons},
        {**counts, "checks": len(report.checks), "checks_failed": failed},
    )


def _preprocess(profile: Profile) -> RunFacts:
    names = ("rows_in", "kept", "exact_duplicates", "near_duplicates", "conflicting")
    splits = {f"{name}_rows": float(split.rows) for name, split in profile.splits.items()}
    params = {"labels": list(profile.labels), "test_digest": profile.test_digest, "learn_digest": profile.learn_digest}
    cut = {"cut_share": profile.tokens.cut_share, "tokens_mean": profile.tokens.mean}
    return RunFacts(
        {**params, "warnings": list(profile.warnings)}, {**{name: float(getattr(profile, name)) for name in names}, **splits, **cut}
    )


def _tune(best: BestTrial) -> RunFacts:
    params = {"study": best.study, "best_trial": best.number, "metric": best.metric, "stopped_by": best.stopped_by, **best.settings}
    counts = {"complete": best.complete, "pruned": best.pruned, "failed": best.failed}
    importance = {f"importance.{name}": share for name, share in best.importance.items()}
    return RunFacts(params, {best.metric: best.value, "seconds": best.seconds, **counts, **importance})


def _train(training: Training) -> RunFacts:
    numbers = ("best_value", "parameters", "steps", "epochs", "best_step", "seconds", "examples_per_second", "peak_memory_mib", "resumed")
    words = ("threads", "device", "precision", "metric", "stopped_by", "weights_sha256")
    metrics = {name: float(getattr(training, name)) for name in numbers}
    return RunFacts({**training.settings, **{name: getattr(training, name) for name in words}}, metrics)


def read_points(lines: list[str], started: float | None = None) -> list[Point]:
    """Return the numbers of history lines: JSON objects with `step`, and `seconds` since the start of the training.

    `started` is the start in seconds since 1970; without it the points have no time.
    """
    points = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue  # an incomplete line of a killed run
        if isinstance(row, dict):
            points += _points(row, started)
    return points


def started_at(history: Path, lines: list[str]) -> float | None:
    """Return the approximate start of a training: the modification time of the history minus its last `seconds`."""
    seconds = [point.value for point in read_points(lines[-1:]) if point.name == "seconds"]
    return history.stat().st_mtime - seconds[0] if seconds else None


def _points(row: dict[str, Any], started: float | None) -> list[Point]:
    step, seconds = int(row.get("step") or 0), row.get("seconds")
    at = int((started + float(seconds)) * 1_000) if started is not None and seconds is not None and _is_number(seconds) else None
    return [Point(name, float(value), step, at) for name, value in row.items() if name != "step" and _is_number(value)]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_lines(path: Path) -> list[str]:
    """Return the complete lines of a file that may still grow."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text[: text.rfind("\n") + 1].splitlines() if line.strip()]


def read_trials(path: Path) -> list[TrialRecord]:
    """Return the trials in trials.parquet, or none if the file does not exist."""
    if not path.exists():
        return []
    return [_trial(row) for row in pq.read_table(path).to_pylist()]


def _trial(row: dict[str, Any]) -> TrialRecord:
    values = {int(step): float(value) for step, value in json.loads(row.get("intermediate") or "{}").items() if _is_number(value)}
    fields = ("number", "state", "value", "params", "intermediate")
    metrics = {name: float(value) for name, value in row.items() if name not in fields and _is_number(value)}
    value = float(row["value"]) if _is_number(row.get("value")) else None
    return TrialRecord(int(row["number"]), str(row["state"]).upper(), value, json.loads(row.get("params") or "{}"), values, metrics)
