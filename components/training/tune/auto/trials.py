"""Trains candidates on all rows, each as a trial of the study."""

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.artifacts.manifest import base_folder
from components.artifacts.training import ModelSpec
from components.core.errors import RetuneError, first_line
from components.core.section import OpenSection
from components.core.temporary import temporary
from components.model import methods, tasks
from components.model.support.feature_cache import FeatureCache
from components.training.trainer import TrainParams, TrainSection
from components.training.trainer.callbacks import Watch
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import CheckpointPaths, TrainResult
from components.training.trainer.head_start import CACHE
from components.training.trainer.identity import training_identity
from components.training.trainer.memory import fit_within_memory
from components.training.trainer.state_dir import state_folder
from components.training.trainer.task_options import apply_options
from components.training.tune.auto.budget import Budget
from components.training.tune.auto.portfolio import OPTION, PROBE, Configuration, describe, rhythm
from components.training.tune.settings import TuneParams
from components.training.tune.study import CUT, ERROR, SECONDS, SETTINGS

log = logging.getLogger(__name__)

NAME, ENDED, SKIPPED, OUTPUT_FOLDER, SOUP = "name", "ended at", "skipped", "outputs", "soup"
REQUESTED, DONE, BEST = "requested", "share of steps", "best share"
TIME_UP = "the minutes are used up"
_NO_LIMIT = 100_000.0  # minutes: the budget of the search ends a training, and no recorded winner depends on the clock
_RUNGS = 8  # points of a training at which trials are compared
_STEPS_BEFORE_PRUNING = 200
FEWEST_STEPS = 20
"""The fewest steps of a training that is worth its time."""


@dataclass(frozen=True)
class SearchInputs:
    """The inputs that the candidates of a search share; `data` and `inputs` (see `digest_inputs`) are by base model."""

    name: str
    options: OpenSection
    learn: Path
    base: Path
    tune: TuneParams
    train: TrainSection
    data: Mapping[str, PreparedSplits]
    inputs: Mapping[str, str]
    folder: Path
    resolved: dict[str, "ResolvedCandidate"] = field(default_factory=dict)

    def resolve(self, configuration: Configuration) -> "ResolvedCandidate":
        """Return the task, the model spec and the settings of a configuration."""
        key = json.dumps(configuration, sort_keys=True)
        if key not in self.resolved:
            self.resolved[key] = self._resolve(configuration)
        return self.resolved[key]

    def _resolve(self, configuration: Configuration) -> "ResolvedCandidate":
        chosen = {name.removeprefix(OPTION): value for name, value in configuration.items() if name.startswith(OPTION)}
        chosen = {name: value for name, value in chosen.items() if name not in self.options.fields}
        task, spec = apply_options(self.name, self.options.fields, chosen, self.learn)
        written = self.train.fixed.model_fields_set
        fields = {name: value for name, value in configuration.items() if not name.startswith(OPTION) and name not in written}
        unwritten = {"metric": self.tune.metric, "max_minutes": _NO_LIMIT}
        fields |= {name: value for name, value in unwritten.items() if name not in written}
        if self.tune.metric == "macro_f1" and "class_biases" not in {*written, *task.unsupported_settings}:
            fields["class_biases"] = "fitted"  # kept by the step `train` only if it helps
        settings = self.train.settings(fields)
        pace = rhythm(settings.model_dump(), set(written)) if settings.method != PROBE else {}
        fields |= pace
        # After a lack of memory the batch is smaller than params.yaml states.
        divided = {name: configuration[name] for name in ("batch_size", "accumulation") if name in configuration}
        settings = self.train.settings(fields).model_copy(update=divided if not fields.keys() >= divided.keys() else {})
        return ResolvedCandidate(task, spec.model_copy(update={"base": settings.base}), settings, fields, chosen)


@dataclass(frozen=True)
class ResolvedCandidate:
    """The task, model spec and settings of a configuration; the search chose `fields` of `train` and task `options`."""

    task: tasks.Task
    spec: ModelSpec
    settings: TrainParams
    fields: dict[str, Any]
    options: dict[str, Any]


class TrialClock(TrainerCallback):
    """Reports the progress of a training, and stops it when the budget of the search is used up.

    A training with an evaluation above `target` is then evaluated once more and ends: `stopped_after` has its steps. Others are pruned.
    """

    def __init__(self, budget: Budget, trial: optuna.Trial | None = None, *, target: float | None = math.inf, until: float = 1.0) -> None:
        """Stop at the share `until` of the steps, and at the end of the budget unless `target` is None.

        A `target` of minus infinity means that no candidate is complete: then a training is never pruned, and ends after FEWEST_STEPS.
        """
        self._budget, self._trial, self._target, self._until = budget, trial, target, until
        self.share, self.steps, self.stopped_after, self.best = 0.0, 0, 0, -math.inf

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Record the step; at the end of the budget stop the training, or raise TrialPruned."""
        self.steps = state.max_steps
        self.share = state.global_step / max(1, state.max_steps)
        if self.share >= self._until and self.share < 1:
            control.should_evaluate = control.should_training_stop = True
        self._budget.report_progress(step=state.global_step, steps=state.max_steps)
        first = self._target == -math.inf
        if self._target is None or self.share == 1 or self._budget.left() > 0 or (first and state.global_step < FEWEST_STEPS):
            return
        if self.best <= self._target and not first:
            if self._trial is not None:
                self._trial.set_user_attr(CUT, TIME_UP)
            raise optuna.TrialPruned
        self.stopped_after = state.global_step
        control.should_evaluate = control.should_training_stop = True


class Trials:
    """Runs candidates as trials of a study."""

    def __init__(self, inputs: SearchInputs, study: optuna.Study, budget: Budget) -> None:
        self._inputs, self._study, self._budget = inputs, study, budget

    def run(self, trial: optuna.Trial, configuration: Configuration) -> FrozenTrial:
        """Train `configuration` as `trial`; a failure or an early stop is recorded with its reason."""
        started, name = time.monotonic(), describe(configuration, len(self._inputs.data))
        trial.set_user_attr(NAME, name)
        trial.set_user_attr(SETTINGS, dict(configuration))
        trial.set_user_attr(REQUESTED, dict(configuration))
        self._budget.report_progress(running=name, step=0, steps=0)
        log.info("trial %d: %s", trial.number, name)
        state, value = TrialState.FAIL, None
        try:
            value = self._train(trial, configuration)
            state = TrialState.COMPLETE
        except optuna.TrialPruned:
            state = TrialState.PRUNED
        except RetuneError as error:
            trial.set_user_attr(ERROR, first_line(error))
        except KeyboardInterrupt:
            trial.set_user_attr(CUT, "interrupted by the user")
            raise
        finally:
            # A finished training that was only loaded counts with its own seconds.
            trial.set_user_attr(SECONDS, max(float(trial.user_attrs.get(SECONDS, 0.0)), round(time.monotonic() - started, 2)))
            trial.set_user_attr(ENDED, round(self._budget.spent(), 2))
            if state is not TrialState.COMPLETE:
                self._forget(trial)
        self._study.tell(trial, value, state)
        frozen = self._study.trials[trial.number]
        self._update_progress(frozen)
        return frozen

    def _forget(self, trial: optuna.Trial) -> None:
        """Delete the weights of a trial that has no score."""
        candidate = self._inputs.resolve(trial.user_attrs[SETTINGS])
        shutil.rmtree(self.checkpoints(candidate), ignore_errors=True)

    def skip(self, configuration: Configuration, reason: str) -> None:
        """Record that `configuration` was not tried."""
        name = describe(configuration, len(self._inputs.data))
        if any(SKIPPED in trial.user_attrs and trial.user_attrs.get(REQUESTED) == dict(configuration) for trial in self._study.trials):
            return
        attributes = {
            NAME: name,
            SETTINGS: dict(configuration),
            REQUESTED: dict(configuration),
            SKIPPED: reason,
            SECONDS: 0.0,
            ENDED: round(self._budget.spent(), 2),
        }
        self._study.add_trial(create_trial(state=TrialState.PRUNED, user_attrs=attributes))
        log.info("not tried: %s: %s", name, reason)

    def fit(
        self,
        candidate: ResolvedCandidate,
        data: PreparedSplits,
        *,
        keep: Callable[[TrainParams], CheckpointPaths] | None,
        clock: TrialClock,
        watch: Watch | None = None,
    ) -> tuple[TrainResult, TrainParams]:
        """Train a candidate on `data`; return the result and the settings, which differ if memory ran out."""
        data = replace(data, spec=candidate.spec)
        base = base_folder(self._inputs.base, candidate.settings.base)
        cache = FeatureCache(state_folder(CACHE), self._inputs.tune.cache_mib)
        return fit_within_memory(candidate.task, base, data, candidate.settings, keep=keep, watch=watch, callbacks=[clock], cache=cache)

    def _train(self, trial: optuna.Trial, configuration: Configuration) -> float:
        candidate = self._inputs.resolve(configuration)
        requested = candidate.settings
        data = self._inputs.data[requested.base]
        done = [other for other in self._study.trials if other.state is TrialState.COMPLETE and self.has_outputs(other)]
        clock = TrialClock(self._budget, trial, target=max((other.value or 0.0 for other in done), default=-math.inf))

        def watch(number: int, value: float) -> None:
            clock.best = max(clock.best, value)
            rung = int(_RUNGS * clock.share)
            if rung and rung not in self._study.trials[trial.number].intermediate_values:
                trial.report(value, rung)
            steps = clock.share * requested.epochs * len(data.train) / (requested.batch_size * requested.accumulation)
            if (
                clock.share < 1
                and not clock.stopped_after
                and steps >= _STEPS_BEFORE_PRUNING
                and trial.should_prune()
                and self._clearly_worse(value, rung, len(data.validation))
            ):
                trial.set_user_attr(CUT, f"worse than others after {clock.share:.0%} of its steps")
                raise optuna.TrialPruned

        with temporary() as folder:
            keep = partial(self.checkpoint_paths, candidate, folder) if methods.trains(requested.method) else None
            result, settings = self.fit(candidate, data, keep=keep, clock=clock, watch=watch)
        if clock.stopped_after:
            settings = self._as_stopped(trial, candidate, settings, clock)
        changed = {name: value for name, value in settings.model_dump().items() if value != getattr(requested, name)}
        if not math.isfinite(result.best_value):
            raise RetuneError(f"{self._inputs.tune.metric} of the validation rows is {result.best_value}")
        if result.stopped_by == "max_minutes":
            trial.set_user_attr(CUT, f"train.max_minutes {settings.max_minutes:g} ended the training")
            raise optuna.TrialPruned
        trial.set_user_attr(SECONDS, round(result.seconds, 2))
        trial.set_user_attr(DONE, clock.share)
        trial.set_user_attr(BEST, result.best_step / clock.steps if clock.steps else 1.0)
        if changed:
            trial.set_user_attr(SETTINGS, {**configuration, **changed})
            trial.set_user_attr(NAME, describe({**configuration, **changed}, len(self._inputs.data)))
        output_folder = self._inputs.folder / self._study.study_name / str(trial.number)
        output_folder.mkdir(parents=True, exist_ok=True)
        result.outputs.write(output_folder)
        trial.set_user_attr(OUTPUT_FOLDER, f"{self._study.study_name}/{trial.number}")
        return result.best_value

    def _as_stopped(self, trial: optuna.Trial, candidate: ResolvedCandidate, settings: TrainParams, clock: TrialClock) -> TrainParams:
        """Return the settings that stop the training where the budget did, and move its weights to where `train` looks for these."""
        stopped = settings.model_copy(update={"stop_after_steps": clock.stopped_after})
        source, target = (self.checkpoints(replace(candidate, settings=own)) for own in (settings, stopped))
        shutil.rmtree(target, ignore_errors=True)
        if source.exists():
            source.rename(target)
        trial.set_user_attr(CUT, f"{TIME_UP} after {clock.share:.0%} of its steps")
        return stopped

    def has_outputs(self, trial: FrozenTrial) -> bool:
        """Return whether the outputs of a complete trial are still there."""
        return OUTPUT_FOLDER in trial.user_attrs and (self._inputs.folder / trial.user_attrs[OUTPUT_FOLDER]).is_dir()

    def checkpoint_paths(self, candidate: ResolvedCandidate, folder: Path, settings: TrainParams) -> CheckpointPaths:
        """Return the paths of a training with `settings`: of its best weights, and in `folder` of its history."""
        return CheckpointPaths(self.checkpoints(replace(candidate, settings=settings)), folder / "history.jsonl", resumable=False)

    def checkpoints(self, candidate: ResolvedCandidate) -> Path:
        """Return the folder in which the step `train` looks for the weights of a candidate."""
        return state_folder("checkpoints") / training_identity(
            self._inputs.inputs[candidate.settings.base], candidate.spec, candidate.settings
        )

    def _clearly_worse(self, value: float, rung: int, rows: int) -> bool:
        """Return whether the value is more than a standard error of a share of `rows` below the best at the same rung."""
        others = [
            t.intermediate_values[rung] for t in self._study.trials if t.state is TrialState.COMPLETE and rung in t.intermediate_values
        ]
        best = max(others, default=value)
        if not 0 <= best <= 1:  # not a share: no standard error without the outputs
            return False
        return bool(best - value > math.sqrt(max(best * (1 - best), 0.01) / max(1, rows)))

    def _update_progress(self, trial: FrozenTrial) -> None:
        done = [other for other in self._study.trials if other.state is TrialState.COMPLETE]
        best = max(done, key=lambda other: (other.value or 0.0, -other.number), default=None)
        self._budget.report_progress(
            running="",
            step=0,
            steps=0,
            tried=sum(other.state.is_finished() and SKIPPED not in other.user_attrs for other in self._study.trials),
            best_name=best.user_attrs[NAME] if best else "",
            best_score=best.value if best else None,
        )
        why = trial.user_attrs.get(CUT) or trial.user_attrs.get(ERROR)
        outcome = (
            f"{self._inputs.tune.metric} {trial.value:.4f}" if trial.state is TrialState.COMPLETE else f"{trial.state.name.lower()}: {why}"
        )
        log.info("trial %d: %s; %.0f s, %.0f s are left", trial.number, outcome, trial.user_attrs[SECONDS], self._budget.left())
