"""The study, which survives a kill and is continued to the same total.

One process at a time holds it, so what a killed one left behind can be mended without asking: a trial that was running is failed and
queued again with its settings.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from components.training.trainer.settings import Value
from components.training.tune.settings import TuneParams
from components.training.tune.storage import Studies, kept
from components.training.tune.warm_start import CARRIED, StudyContext, warm_start

log = logging.getLogger(__name__)

ERROR = "error"  # why a trial failed; a failed trial without it was interrupted, and does not count
SECONDS = "seconds"
SETTINGS = "settings"
CUT = "cut"


@contextmanager
def open_study(identity: str, tune: TuneParams, first: Mapping[str, Value], kin: StudyContext | None = None) -> Iterator[optuna.Study]:
    """Open the study called `identity`, mended and ready for its next trial, for this process alone.

    A new one begins with the trials of its `kin` that lie in its space.

    Raises:
        Unavailable: another process holds it.
    """
    studies = kept()
    with studies.hold(identity) as storage:
        yield _opened(identity, studies, storage, tune, first, kin)


def sampler(tune: TuneParams, ordinal: int) -> optuna.samplers.TPESampler:
    """Return the sampler of the trial with this `ordinal`; seeded by it, so that a continued study proposes the same."""
    return optuna.samplers.TPESampler(n_startup_trials=tune.explore, seed=(tune.seed * 1_000_003 + ordinal) % 2**32)


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that use up the budget: complete, pruned, or failed for a reason of their own; none of an earlier search."""
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    own = [trial for trial in study.trials if CARRIED not in trial.user_attrs]
    return [trial for trial in own if trial.state in done or (trial.state is TrialState.FAIL and ERROR in trial.user_attrs)]


def spent(study: optuna.Study) -> float:
    """Return the seconds of all trials, interrupted ones included; those of an earlier search were spent there."""
    return sum(float(trial.user_attrs.get(SECONDS, 0.0)) for trial in study.trials if CARRIED not in trial.user_attrs)


def _opened(
    identity: str, studies: Studies, storage: BaseStorage, tune: TuneParams, first: Mapping[str, Value], kin: StudyContext | None
) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name=identity,
        storage=storage,
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=tune.prune_after),
        load_if_exists=True,
    )
    if kin is not None and all(CARRIED in trial.user_attrs for trial in study.trials):
        warm_start(study, studies, kin)
    _requeue(study, first)
    study.sampler = sampler(tune, len(counted(study)))
    return study


def _requeue(study: optuna.Study, first: Mapping[str, Value]) -> None:
    """Fail the trials that a killed process left running, and queue the settings that the next trial must have."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        log.warning("trial %d was interrupted; its settings are tried again", trial.number)
        study.tell(trial.number, state=TrialState.FAIL)
    trials = study.trials
    if any(trial.state is TrialState.WAITING for trial in trials):
        return
    interrupted = bool(trials) and trials[-1].state is TrialState.FAIL and ERROR not in trials[-1].user_attrs
    if interrupted and trials[-1].params:
        study.enqueue_trial(trials[-1].params)
    elif not counted(study) and first and not any(first.items() <= trial.params.items() for trial in trials):
        study.enqueue_trial(dict(first))
