"""Record the trials of a search as child runs of the stage `tune`: those of the leaderboard, else those of trials.parquet."""

from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric

from components.artifacts.tuning_result import Candidate, Leaderboard, Trial, read_trials
from components.core.documents import flatten
from components.mlflow_store.connection import log_in_batches, metrics_of, now_ms, params_of
from components.mlflow_store.tracking import runs

_STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED", "FAILED": "FAILED", "RUNNING": "KILLED", "WAITING": "KILLED"}
_OF_CANDIDATE = {"complete": "FINISHED", "stopped": "KILLED", "failed": "FAILED", "skipped": "KILLED"}
_MEASURED = {"score", "low", "high", "first_score", "holdouts", "seconds", "share", "ended_at"}


def add_trials(client: MlflowClient, experiment: str, parent: str, tuned: Path) -> None:
    """Add one run per candidate or trial of the search in the folder `tuned`."""
    trials = read_trials(tuned / "trials.parquet")
    if (board := Leaderboard.find(tuned)) and board.candidates:
        steps = {trial.number: _steps(trial) for trial in trials}
        for candidate in board.candidates:
            _add_candidate(client, experiment, parent, candidate, steps.get(candidate.number, []))
        return
    for trial in trials:
        _add_trial(client, experiment, parent, trial)


def _add_candidate(client: MlflowClient, experiment: str, parent: str, candidate: Candidate, steps: list[Metric]) -> None:
    """Add a candidate's run: its settings as params; score with interval, cost, and share of the budget as metrics."""
    tags = {
        "retune.stage": "tune",
        "retune.trial": candidate.number,
        "retune.state": candidate.state,
        "retune.reason": candidate.reason or None,
        "retune.winner": str(candidate.winner).lower(),
    }
    run_id = runs.start(client, experiment, candidate.name, "trial", tags, parent)
    chosen = candidate.settings | candidate.model_dump(include={"base", "method"}) | flatten(candidate.task_options, "task_options.")
    numbers = candidate.model_dump(include=_MEASURED, exclude_none=True)
    log_in_batches(client, run_id, params=params_of(chosen), metrics=[*metrics_of(numbers), *steps])
    client.set_terminated(run_id, _OF_CANDIDATE[candidate.state])


def _add_trial(client: MlflowClient, experiment: str, parent: str, trial: Trial) -> None:
    tags = {"retune.stage": "tune", "retune.trial": trial.number, "retune.state": trial.state}
    run_id = runs.start(client, experiment, f"trial {trial.number}", "trial", tags, parent)
    numbers = {name: number for name, number in (("seconds", trial.seconds), ("value", trial.value)) if number is not None}
    log_in_batches(client, run_id, params=params_of(trial.params), metrics=[*metrics_of(numbers), *_steps(trial)])
    client.set_terminated(run_id, _STATUS.get(trial.state, "FINISHED"))


def _steps(trial: Trial) -> list[Metric]:
    """Return the intermediate values of a trial by step."""
    return [Metric("intermediate", value, now_ms(), step) for step, value in sorted(trial.values.items())]
