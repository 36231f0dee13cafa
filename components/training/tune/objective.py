"""The trials of a search and its stopping rule."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from components.core.errors import RetuneError, first_line
from components.model.support.feature_cache import FeatureCache
from components.model.tasks import Task
from components.training.trainer import TrainParams, TrainSection
from components.training.trainer.data import PreparedSplits
from components.training.trainer.head_start import CACHE
from components.training.trainer.memory import fit_within_memory
from components.training.trainer.settings import Value
from components.training.trainer.state_dir import state_folder
from components.training.tune import tuning_artifacts
from components.training.tune.settings import Dimension, TuneParams
from components.training.tune.study import CUT, ERROR, SECONDS, SETTINGS, finished_trials, sampler, seconds_spent

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Search:
    """One search: `learn` contains the rows of a trial for each of `bases`, `space` only the searched dimensions."""

    task: Task
    bases: Mapping[str, Path]
    learn: Mapping[str, PreparedSplits]
    tune: TuneParams
    train: TrainSection
    space: dict[str, Dimension]

    def run(self, study: optuna.Study) -> str:
        """Run trials until a budget over all processes is used up; return its name: `trials` or `minutes`."""
        trials = self.tune.trials - len(finished_trials(study))
        seconds = self.tune.minutes * 60 - seconds_spent(study)
        if trials > 0 and seconds > 0:
            study.optimize(self._trial, trials, seconds, catch=(RetuneError,), callbacks=[self._after])
        return "trials" if len(finished_trials(study)) >= self.tune.trials else "minutes"

    def _trial(self, trial: optuna.Trial) -> float:
        """Train with suggested settings; return the best metric over the trial's evaluations."""
        started = time.monotonic()
        before = seconds_spent(trial.study)
        chosen = suggest(trial, self.space, self.train.fixed.model_dump())
        trial.set_user_attr(SETTINGS, chosen)

        def watch(number: int, value: float) -> None:
            seconds = time.monotonic() - started
            trial.report(value, number)
            trial.set_user_attr(SECONDS, round(seconds, 2))
            if number >= self.tune.evaluations:
                return
            if trial.should_prune():
                raise optuna.TrialPruned
            if before + seconds > self.tune.minutes * 60 and trial.study.get_trials(states=(TrialState.COMPLETE,)):
                trial.set_user_attr(CUT, "minutes")
                raise optuna.TrialPruned

        try:
            settings = self._settings(chosen)
            cache = FeatureCache(state_folder(CACHE), self.tune.cache_mib)
            base, learn = self.bases[settings.base], self.learn[settings.base]
            fitted, _ = fit_within_memory(self.task, base, learn, settings, evaluations=self.tune.evaluations, watch=watch, cache=cache)
            return fitted.best_value
        except RetuneError as error:
            trial.set_user_attr(ERROR, first_line(error))
            raise
        finally:
            trial.set_user_attr(SECONDS, round(time.monotonic() - started, 2))

    def _settings(self, chosen: Mapping[str, Value]) -> TrainParams:
        of_trial = {"epochs": self.tune.epochs, "metric": self.tune.metric, "max_minutes": self.tune.minutes, "stop_after_steps": None}
        return self.train.settings(chosen).model_copy(update=of_trial)

    def _after(self, study: optuna.Study, trial: FrozenTrial) -> None:
        done = len(finished_trials(study))
        log.info(
            "trial %d (%d of %d): %s; %s; %.0f s",
            *(trial.number, done, self.tune.trials, _outcome(trial, self.tune)),
            *(tuning_artifacts.listed(trial.user_attrs.get(SETTINGS, trial.params)), trial.user_attrs.get(SECONDS, 0.0)),
        )
        study.sampler = sampler(self.tune, done)


def suggest(trial: optuna.Trial, space: Mapping[str, Dimension], fixed: Mapping[str, Value]) -> dict[str, Value]:
    """Return a value for every dimension: the sampler's, or the default if its condition is not met."""
    values = dict(fixed)
    chosen: dict[str, Value] = {}
    for name, dimension in space.items():
        chosen[name] = _suggest(trial, name, dimension) if dimension.active(values) else values[name]
        values[name] = chosen[name]
    return chosen


def _suggest(trial: optuna.Trial, name: str, dimension: Dimension) -> Value:
    if dimension.type == "categorical":
        return trial.suggest_categorical(name, dimension.choices)
    low, high = dimension.low or 0.0, dimension.high or 0.0
    if dimension.type == "int":
        return trial.suggest_int(name, int(low), int(high), step=int(dimension.step or 1), log=dimension.log)
    return trial.suggest_float(name, low, high, step=dimension.step, log=dimension.log)


def _outcome(trial: FrozenTrial, tune: TuneParams) -> str:
    if trial.state is TrialState.COMPLETE:
        return f"{tune.metric} {trial.value:.4f}"
    last = max(trial.intermediate_values, default=0)
    if trial.state is TrialState.PRUNED:
        why = "time is up" if CUT in trial.user_attrs else f"{tune.metric} {trial.intermediate_values[last]:.4f} is below the median"
        return f"stopped after {last} of {tune.evaluations} evaluations, {why}"
    return f"failed: {trial.user_attrs.get(ERROR, 'interrupted')}"
