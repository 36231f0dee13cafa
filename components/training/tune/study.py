"""Opens the study, which survives a kill and continues to the same total.

Only one process at a time uses it, so a trial that a killed process left running can be marked as failed and queued again safely.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from components.training.trainer.settings import Value
from components.training.tune.settings import TuneParams
from components.training.tune.storage import Studies, open_studies
from components.training.tune.warm_start import CARRIED, StudyContext, warm_start

log = logging.getLogger(__name__)

ERROR = "error"  # the reason of a failed trial; a failed trial without one was interrupted and does not count
SECONDS = "seconds"
SETTINGS = "settings"
CUT = "cut"


@contextmanager
def open_study(
    identity: str,
    tune: TuneParams,
    first: Mapping[str, Value] | None,
    context: StudyContext | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
) -> Iterator[optuna.Study]:
    """Open and lock the study called `identity`, repaired and ready for its next trial.

    A new study starts with the comparable trials of other studies (`context`) that are in its space. With `first` None, interrupted trials
    are not queued again. The default `pruner` compares with the median of the trials before.

    Raises:
        Unavailable: another process holds the lock.
    """
    studies = open_studies()
    with studies.locked(identity) as storage:
        pruner = pruner or optuna.pruners.MedianPruner(n_startup_trials=tune.prune_after)
        yield _prepare(identity, studies, storage, tune, first, context, pruner)


def sampler(tune: TuneParams, ordinal: int) -> optuna.samplers.TPESampler:
    """Return the sampler of the trial `ordinal`, seeded by it, so that a resumed study proposes the same settings."""
    return optuna.samplers.TPESampler(n_startup_trials=tune.explore, seed=(tune.seed * 1_000_003 + ordinal) % 2**32)


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that use up the budget: complete, pruned, or failed with an error; none of an earlier search."""
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    own = [trial for trial in study.trials if CARRIED not in trial.user_attrs]
    return [trial for trial in own if trial.state in done or (trial.state is TrialState.FAIL and ERROR in trial.user_attrs)]


def seconds_spent(study: optuna.Study) -> float:
    """Return the seconds of all trials of this search, interrupted ones included."""
    return sum(float(trial.user_attrs.get(SECONDS, 0.0)) for trial in study.trials if CARRIED not in trial.user_attrs)


def _prepare(
    identity: str,
    studies: Studies,
    storage: BaseStorage,
    tune: TuneParams,
    first: Mapping[str, Value] | None,
    context: StudyContext | None,
    pruner: optuna.pruners.BasePruner,
) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name=identity,
        storage=storage,
        direction="maximize",
        pruner=pruner,
        load_if_exists=True,
    )
    if context is not None and all(CARRIED in trial.user_attrs for trial in study.trials):
        warm_start(study, studies, context)
    if first is None:
        _end_running(study)
    else:
        _requeue(study, first)
    study.sampler = sampler(tune, len(finished_trials(study)))
    return study


def _end_running(study: optuna.Study) -> None:
    """Mark the trials that a killed process left running or queued as failed; they are repeated by the caller."""
    for _ in study.get_trials(states=(TrialState.WAITING,)):
        study.tell(study.ask(), state=TrialState.FAIL)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def _requeue(study: optuna.Study, first: Mapping[str, Value]) -> None:
    """Mark the trials that a killed process left running as failed, and queue the settings of the next trial if they are given."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        log.warning("trial %d was interrupted; retrying its settings", trial.number)
        study.tell(trial.number, state=TrialState.FAIL)
    trials = study.trials
    if any(trial.state is TrialState.WAITING for trial in trials):
        return
    interrupted = bool(trials) and trials[-1].state is TrialState.FAIL and ERROR not in trials[-1].user_attrs
    if interrupted and trials[-1].params:
        study.enqueue_trial(trials[-1].params)
    elif not finished_trials(study) and first and not any(first.items() <= trial.params.items() for trial in trials):
        study.enqueue_trial(dict(first))
