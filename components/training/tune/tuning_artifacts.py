"""The results of a search: the best trial, and a table of all trials."""

import json
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
from optuna.trial import FrozenTrial, TrialState

from components.artifacts.tuning_result import BestTrial, Leaderboard, TunedSettings
from components.core.errors import RetuneError
from components.training.trainer.settings import Value
from components.training.tune.settings import TuneParams
from components.training.tune.study import CUT, ERROR, SECONDS, SETTINGS, finished_trials, seconds_spent
from components.training.tune.warm_start import CARRIED

log = logging.getLogger(__name__)

TRIALS = "trials.parquet"
_TYPES = {"number": "int64", "value": "double", "seconds": "double"}
_SCHEMA = pa.schema(
    {name: _TYPES.get(name, "string") for name in ("number", "state", "value", "params", "seconds", "intermediate", "note")}
)


def best(study: optuna.Study, tune: TuneParams, stopped_by: str) -> BestTrial:
    """Return the best of the first `tune.trials` trials and of those carried over from earlier searches; the earliest of equals.

    Raises:
        RetuneError: none of them is complete.
    """
    own = finished_trials(study)[: tune.trials]
    trials = [*(trial for trial in study.trials if CARRIED in trial.user_attrs), *own]
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if not complete:
        raise RetuneError(_no_trial_message(trials, tune))
    top = max(complete, key=lambda trial: (trial.value if trial.value is not None else -math.inf, -trial.number))
    return best_of(study, trials, top, tune.metric, stopped_by, top.user_attrs[SETTINGS])


def best_of(
    study: optuna.Study, trials: Sequence[FrozenTrial], top: FrozenTrial, metric: str, stopped_by: str, settings: Mapping[str, Value]
) -> BestTrial:
    """Return the record of the chosen trial `top` among `trials`; `settings` are the chosen fields of `train`."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    return BestTrial(
        study=study.study_name,
        number=top.number,
        metric=metric,
        value=float(top.value or 0.0),
        settings=dict(settings),
        complete=len(complete),
        pruned=sum(trial.state is TrialState.PRUNED for trial in trials),
        failed=sum(trial.state is TrialState.FAIL for trial in trials),
        seconds=round(seconds_spent(study), 2),
        importance=importance(study, complete),
        stopped_by=stopped_by,
        carried=sum(CARRIED in trial.user_attrs for trial in trials),
    )


def importance(study: optuna.Study, complete: Sequence[FrozenTrial]) -> dict[str, float]:
    """Return each searched field's share in the variance of the metric, the largest first; empty if nothing varies."""
    searched = [trial for trial in complete if trial.params]  # neither linear probes nor weight averages
    if len(searched) < 2 or len({trial.value for trial in searched}) < 2:
        return {}
    try:
        if len(searched) < len(complete):
            study = optuna.create_study(direction="maximize")
            study.add_trials(searched)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # few trials with some value
            shares = optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError) as error:
        log.info("cannot compute the importance of the settings: %s", error)
        return {}
    return {name: round(share, 6) for name, share in shares.items() if math.isfinite(share)}


def write(
    out: Path,
    best: BestTrial,
    trials: Sequence[FrozenTrial],
    *,
    options: Mapping[str, Any] | None = None,
    soup: Sequence[Mapping[str, Value]] = (),
    board: Leaderboard | None = None,
) -> None:
    """Write trials.parquet, leaderboard.json, settings.json sorted by name and, last, best.json.

    `options` are the chosen task options, `soup` the other members of a weight average; without a `board` the leaderboard is empty.
    """
    rows = [_row(trial) for trial in trials if trial.state is not TrialState.WAITING]
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), out / TRIALS)
    board = board or Leaderboard(metric=best.metric, minutes=0.0, seconds=best.seconds, validation_rows=0)
    board.write(out)
    settings, chosen = dict(sorted(best.settings.items())), dict(sorted((options or {}).items()))
    TunedSettings(settings=settings, task_options=chosen, soup=tuple(dict(member) for member in soup)).write(out)
    best.write(out)


def listed(settings: Mapping[str, Value]) -> str:
    """Return settings as `name value, name value`."""
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items())


def _row(trial: FrozenTrial) -> dict[str, object]:
    interrupted = "interrupted" if trial.state is TrialState.FAIL else ""
    return {
        "number": trial.number,
        "state": trial.state.name,
        "value": trial.value if trial.state is TrialState.COMPLETE else None,
        "params": json.dumps(trial.user_attrs.get(SETTINGS, trial.params), sort_keys=True),
        "seconds": trial.user_attrs.get(SECONDS),
        "intermediate": json.dumps({str(point): value for point, value in sorted(trial.intermediate_values.items())}),
        "note": trial.user_attrs.get(ERROR) or trial.user_attrs.get(CUT) or interrupted,
    }


def _no_trial_message(trials: Sequence[FrozenTrial], tune: TuneParams) -> str:
    reasons = sorted({str(trial.user_attrs[ERROR]) for trial in trials if ERROR in trial.user_attrs})
    pruned = sum(trial.state is TrialState.PRUNED for trial in trials)
    if not trials:
        return f"no trial completed within tune.minutes {tune.minutes:g}; raise it, or lower tune.train_fraction or tune.epochs"
    counts = f"{len(trials) - pruned} failed and {pruned} were pruned" + (f": {'; '.join(reasons)}" if reasons else "")
    return f"none of {len(trials)} trials completed: {counts}. Check tune.space and tune.initial_trial"
