"""Read the outputs of the stages as params and metrics of MLflow runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mlflow.entities import Metric

from components.artifacts.metrics import Estimate, Metrics
from components.artifacts.profile import Profile
from components.artifacts.training import Training, history_entries
from components.artifacts.tuning_result import BestTrial, Leaderboard
from components.artifacts.validation import ValidationReport
from components.mlflow_store.connection import key, now_ms


class RunFacts(NamedTuple):
    """Flat params and metrics of one run."""

    params: Mapping[str, object]
    metrics: Mapping[str, float]


def headline(metrics: Metrics) -> dict[str, float]:
    """Return the candidate's scores, its calibration and its differences to the baselines; intervals as NAME_low and NAME_high."""
    estimates: dict[str, Estimate] = metrics.headline | ({"brier": metrics.brier} if metrics.brier else {})
    values: dict[str, float] = {"test_rows": metrics.rows}
    for baseline, differences in metrics.differences.items():
        estimates |= {f"{name}_over_{baseline}": estimate for name, estimate in differences.items()}
    for name, estimate in estimates.items():
        values |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    for baseline, scores in metrics.baselines.items():
        values |= {f"{baseline}.{name}": estimate.value for name, estimate in scores.items()}
    return values | metrics.model_dump(include={"ece", "ece_debiased"}, exclude_none=True)


def stage_facts(workspace: Path) -> dict[str, RunFacts]:
    """Read the facts of each stage; raise NotFound if a stage has not run."""
    report = ValidationReport.read(workspace / "data/validated")
    profile = Profile.read(workspace / "data/prepared")
    best, board = BestTrial.read(workspace / "models/tuned"), Leaderboard.find(workspace / "models/tuned")
    training = Training.read(workspace / "models/trained")
    metrics = Metrics.read(workspace / "reports/evaluation")
    return {
        "validate": RunFacts(
            report.model_dump(include={"snapshot", "accepted", "reasons"}),
            report.model_dump(include={"rows_in", "kept", "quarantined"})
            | {"checks": len(report.checks), "checks_failed": sum(not check.passed for check in report.checks)},
        ),
        "preprocess": RunFacts(
            profile.model_dump(include={"labels", "test_digest", "learn_digest", "warnings"}),
            profile.model_dump(include={"rows_in", "kept", "exact_duplicates", "near_duplicates", "conflicting"})
            | {f"{name}_rows": split.rows for name, split in profile.splits.items()}
            | {"cut_share": profile.tokens.cut_share, "tokens_mean": profile.tokens.mean},
        ),
        "tune": RunFacts(
            {"best_trial": best.number} | best.model_dump(include={"study", "metric", "stopped_by"}) | best.settings | _winner(board),
            {best.metric: best.value}
            | best.model_dump(include={"seconds", "complete", "pruned", "failed"})
            | {f"importance.{name}": share for name, share in best.importance.items()}
            | _optimism(board),
        ),
        "train": RunFacts(
            training.settings | training.model_dump(include={"threads", "device", "precision", "metric", "stopped_by", "weights_sha256"}),
            training.model_dump(include={"best_value", "parameters", "steps", "epochs", "best_step", "seconds", "resumed"})
            | training.model_dump(include={"examples_per_second", "peak_memory_mib"}),
        ),
        "evaluate": RunFacts({"test_digest": metrics.test_digest, "left_out": list(metrics.left_out)}, headline(metrics)),
    }


def _winner(board: Leaderboard | None) -> dict[str, str]:
    return {"winner": board.winner.name} if board and board.winner else {}


def _optimism(board: Leaderboard | None) -> dict[str, float]:
    names = ("optimism", "optimism_low", "optimism_high")
    return dict(zip(names, board.optimism, strict=True)) if board and board.optimism else {}


def history_metrics(lines: Sequence[str], started: float | None = None) -> list[Metric]:
    """Return the numbers of history lines as metrics by step.

    `started` is the start of the training in seconds since 1970; without it the metrics have the current time.
    """
    metrics = []
    for entry in history_entries(lines):
        at = now_ms() if started is None or "seconds" not in entry else int((started + entry["seconds"]) * 1_000)
        metrics += [Metric(key(name), value, at, int(entry["step"])) for name, value in entry.items() if name != "step"]
    return metrics


def started_at(history: Path, lines: Sequence[str]) -> float | None:
    """Return the approximate start of a training: the modification time of the history minus its last `seconds`."""
    seconds = [entry["seconds"] for entry in history_entries(lines[-1:]) if "seconds" in entry]
    return history.stat().st_mtime - seconds[0] if seconds else None
