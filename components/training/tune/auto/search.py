"""The search of the strategy `auto`: probes, the portfolio, the sampler, the selection, and the files of the step `tune`."""

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from components.artifacts.manifest import base_folder, base_names
from components.core.errors import BadParams, RetuneError
from components.core.hashing import digest_value
from components.core.output_dir import fresh
from components.core.section import OpenSection
from components.model import tasks
from components.training.trainer import TrainSection
from components.training.trainer.data import PreparedSplits
from components.training.trainer.identity import digest_inputs
from components.training.trainer.state_dir import state_folder
from components.training.tune import tuning_artifacts
from components.training.tune.auto import earlier, finals, leaderboard, soup
from components.training.tune.auto.budget import Budget
from components.training.tune.auto.portfolio import PROBE, Configuration, Portfolio, build
from components.training.tune.auto.speed import Speed
from components.training.tune.auto.time_plan import TimePlan
from components.training.tune.auto.trials import REQUESTED, SKIPPED, SOUP, TIME_UP, SearchInputs, Trials
from components.training.tune.objective import suggest
from components.training.tune.run_search import refuse_different_tokenizers
from components.training.tune.settings import TuneParams
from components.training.tune.study import CUT, ERROR, SETTINGS, open_study, sampler

log = logging.getLogger(__name__)

_FINISHED = "auto finished"  # the minutes of a search that has ended: repeated, it gives the same result
_STOPPED_BY = "auto stopped by"
_MISFITS = 8  # sampled candidates in a row that do not fit into the time: the end
_NEAR_FIRST = 10  # trained candidates until the sampler chooses
_UNCHANGED = 15  # sampled candidates in a row that are no better: the end
_PERFECT = 1.0  # no metric is higher
_KEPT = 6  # trained candidates whose weights stay on disk during the search
_INTERRUPTIONS = 2  # of a candidate, e.g. by the kernel because of its memory: then it is not tried again


def search(learn: Path, base: Path, out: Path, *, name: str, tune: TuneParams, train: TrainSection, task_options: OpenSection) -> None:
    """Try candidates for `tune.minutes`, select one, and write its settings, all trials and the leaderboard into `out`.

    Raises:
        BadParams: the minutes are too few, a choice is unknown, or the base models cannot be compared.
        NotFound: preprocessing has not run.
        RetuneError: no candidate completed; the message has each cause.
        Unavailable: another process uses the same study.
    """
    task = tasks.load(name, task_options.fields)
    bases = [train.fixed.base] if "base" in train.fixed.model_fields_set else list(tune.candidates.bases or base_names(base))
    data = {choice: PreparedSplits.read(learn, choice) for choice in bases}
    refuse_different_tokenizers(task, data, "tune.candidates.bases")
    inputs = {choice: digest_inputs(learn, base_folder(base, choice)) for choice in bases}
    portfolio = build(task, task_options.fields, train, tune.candidates, bases, len(data[bases[0]].train))
    context = earlier.read_context(tune, train, task_options, learn, base, bases)
    tried = [portfolio.probes, portfolio.queue, sorted(portfolio.space)]
    identity = digest_value([context.context, sorted(context.bases.items()), *tried])[:16]
    shared = SearchInputs(name, task_options, learn, base, tune, train, data, inputs, state_folder("auto"))
    speeds = {choice: Speed(task, base_folder(base, choice), context.bases[choice], data[choice]) for choice in bases}
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=4, reduction_factor=2)
    with open_study(identity, tune, None, None, pruner) as study, Budget(identity, tune.minutes, tune.metric).running() as budget:
        previous = earlier.warm_start(study, context, portfolio)
        run = AutoSearch(shared, study, budget, portfolio, speeds, previous)
        if not run.complete() or study.user_attrs.get(_FINISHED, 0.0) < tune.minutes:
            run.run_trials()
        else:
            run.stopped_by = study.user_attrs.get(_STOPPED_BY, run.stopped_by)
        complete = run.complete()
        if not complete:
            raise RetuneError(_nothing(study.trials))
        selected = finals.select(shared, complete, run.runner, budget)
        selected = soup.average_if_better(shared, selected, complete, run.runner, study, budget)
        members = selected.winner.user_attrs.get(soup.MEMBERS, [selected.winner.number])
        run.keep([trial for trial in complete if trial.number in members])
        earlier.remember(study, selected.winner.user_attrs[SETTINGS])
        study.set_user_attr(_STOPPED_BY, run.stopped_by)
        study.set_user_attr(_FINISHED, tune.minutes)
        chosen = shared.resolve(selected.winner.user_attrs[SETTINGS])
        shown = [trial for trial in study.trials if SKIPPED not in trial.user_attrs]
        best = tuning_artifacts.best_of(study, shown, selected.winner, tune.metric, run.stopped_by, chosen.fields)
        board = leaderboard.build(shared, study.trials, selected, budget, run.notes)
        others = selected.winner.user_attrs.get(SOUP, ())
        tuning_artifacts.write(fresh(out), best, shown, options=chosen.options, soup=others, board=board)
    log.info("chosen from %d candidates: %s", len(complete), leaderboard.sentence(board))


class AutoSearch:
    """Chooses the next candidate, within the budget."""

    def __init__(
        self,
        inputs: SearchInputs,
        study: optuna.Study,
        budget: Budget,
        portfolio: Portfolio,
        speeds: Mapping[str, Speed],
        previous: earlier.Previous | None,
    ) -> None:
        self._inputs, self._study, self._budget, self._portfolio = inputs, study, budget, portfolio
        self.runner = Trials(inputs, study, budget)
        self.notes: list[str] = []
        self.stopped_by = "portfolio"
        self._previous = previous
        if previous is not None and previous.share < 1:
            budget.seconds *= previous.share
            text = "%.0f %% of the rows changed since the last search, so it uses %.1f of the %g minutes"
            self.notes.append(text % (100 * previous.moved, budget.seconds / 60, inputs.tune.minutes))
        self._time = TimePlan(inputs, budget, speeds)

    def complete(self) -> list[FrozenTrial]:
        """Return the trials that have a score."""
        done = [trial for trial in self._study.trials if trial.state is TrialState.COMPLETE and SOUP not in trial.user_attrs]
        return [trial for trial in done if self.runner.has_outputs(trial)]

    def run_trials(self) -> None:
        """Run the probes, then the portfolio, then values that the sampler suggests, until the time for trials is over."""
        if not self._study.trials:
            self._time.refuse_too_few_minutes(self._portfolio.probes or self._portfolio.queue)
        self._budget.report_progress(phase="linear probes")
        for configuration in self._portfolio.probes:
            if self._is_known(configuration):
                continue
            if self.complete() and self._time.seconds(configuration) > self._budget.left():
                self._skip(configuration)
            else:
                self._run(self._study.ask(), configuration)
        self._budget.report_progress(phase="portfolio")
        for configuration in self._queue():
            if self._is_known(configuration):
                continue
            fitting = self._time.fit_epochs(configuration, self.complete())
            if fitting is None:
                self._skip(configuration)
            else:
                self._run(self._ask(fitting), fitting)
        if not self.complete():
            self._run_cheapest()
        self._budget.report_progress(phase="searching around the best")
        self._sample()

    def _ask(self, configuration: Configuration) -> optuna.Trial:
        """Return a trial with the values of `configuration`, for the sampler to learn from; without them if they are not in the space."""
        if not self._is_in_space(configuration):  # too little time for the fewest epochs
            return self._study.ask()
        active = self._portfolio.active(configuration)
        self._study.enqueue_trial({name: configuration.get(name, self._portfolio.defaults[name]) for name in active})
        trial = self._study.ask()
        suggest(trial, self._portfolio.space, self._portfolio.defaults)
        return trial

    def _sample(self) -> None:
        """Run further candidates until nothing fits into the time any more, or nothing gets better.

        They are near the best one until a number have been trained, because the sampler's values are almost random before that.
        """
        misfits = unchanged = 0
        if not self._portfolio.space:
            return
        while misfits < _MISFITS and unchanged < _UNCHANGED and self._time.left(self.complete()) > 0 and self._best() < _PERFECT:
            sampled = self._suggest(misfits)
            if sampled is None:
                misfits += 1
                continue
            best = self._best()
            done = self._run(*sampled)
            better = done.state is TrialState.COMPLETE and (done.value or 0.0) > best
            misfits, unchanged = 0, 0 if better else unchanged + 1
        self.stopped_by = "no better candidates" if unchanged >= _UNCHANGED or self._best() >= _PERFECT else "minutes"

    def _suggest(self, misfits: int) -> tuple[optuna.Trial, Configuration] | None:
        """Return a trial and its configuration; None if that does not fit into the time, or is not a new one."""
        if len(self._trained()) < _NEAR_FIRST:
            draws = np.random.default_rng([self._inputs.tune.seed, len(self._study.trials), misfits])
            fitting = self._time.fit_epochs(self._portfolio.near(self._like_best(), draws), self.complete())
            return (self._ask(fitting), fitting) if fitting is not None and self._is_new(fitting) else None
        self._study.sampler = sampler(self._inputs.tune, len(self._study.trials))
        trial = self._study.ask()
        configuration = {**self._like_best(), **suggest(trial, self._portfolio.space, self._portfolio.defaults)}
        if self._time.fit_epochs(configuration, self.complete()) == configuration:
            return trial, configuration
        trial.set_user_attr(SKIPPED, "does not fit into the time")
        self._study.tell(trial, state=TrialState.PRUNED)
        return None

    def _is_new(self, configuration: Configuration) -> bool:
        """Return whether the search may try a configuration, and has not yet."""
        known = [trial.user_attrs.get(REQUESTED) for trial in self._study.trials]
        if configuration in known or not self._is_in_space(configuration):
            return False
        try:  # as params.yaml is read: some fields exclude each other
            TrainSection.parse(self._inputs.resolve(configuration).settings.model_dump(), "train")
        except BadParams:
            return False
        return True

    def _trained(self) -> list[FrozenTrial]:
        return [trial for trial in self.complete() if trial.user_attrs[SETTINGS]["method"] != PROBE]

    def _run_cheapest(self) -> None:
        """Run the candidate that takes the least time, although a killed process has used up the minutes."""
        short = [{**configuration, "epochs": self._time.fewest_epochs(configuration)} for configuration in self._portfolio.queue]
        for configuration in (*self._portfolio.probes, *sorted(short, key=lambda configuration: float(configuration["epochs"]))):
            if not self.complete() and not self._is_known(configuration):
                self._run(self._study.ask(), configuration)

    def _best(self) -> float:
        return max((trial.value or 0.0 for trial in self.complete()), default=-math.inf)

    def _run(self, trial: optuna.Trial, configuration: Configuration) -> FrozenTrial:
        done = self.runner.run(trial, configuration)
        if done.state is TrialState.COMPLETE and configuration["method"] != PROBE:
            self._time.correct(configuration, done)
        self.keep(sorted(self._trained(), key=lambda trial: -(trial.value or 0.0))[:_KEPT])
        return done

    def keep(self, best: Sequence[FrozenTrial]) -> None:
        """Remove the weights of all trials except `best`."""
        kept = {self.runner.checkpoints(self._inputs.resolve(trial.user_attrs[SETTINGS])) for trial in best}
        for trial in self.complete():
            folder = self.runner.checkpoints(self._inputs.resolve(trial.user_attrs[SETTINGS]))
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _queue(self) -> list[dict[str, Any]]:
        """Return the portfolio, the base with the best probe first."""
        scores: dict[str, float] = {}
        for trial in self.complete():
            base = str(trial.user_attrs[SETTINGS]["base"])
            scores[base] = max(scores.get(base, -math.inf), trial.value or 0.0)
        queue = sorted(self._portfolio.queue, key=lambda configuration: -scores.get(str(configuration["base"]), -math.inf))
        before = self._previous.winner if self._previous else None
        usable = before is not None and before["method"] != PROBE and self._is_in_space(before)
        return [dict(before), *queue] if usable and before else queue

    def _is_in_space(self, configuration: Configuration) -> bool:
        """Return whether the values of a configuration, which may be of an earlier search, are in the space."""
        space, defaults = self._portfolio.space, self._portfolio.defaults
        methods = {str(known["method"]) for known in self._portfolio.queue}
        if configuration["base"] not in self._inputs.data or configuration["method"] not in methods:
            return False
        try:
            self._inputs.resolve(configuration)
        except BadParams:  # of another release
            return False
        active = self._portfolio.active(configuration)
        return all(space[name].contains(configuration.get(name, defaults[name])) for name in active)

    def _is_known(self, configuration: Configuration) -> bool:
        """Return whether `configuration` has been tried, with any epochs, here or in an earlier search on the same data."""
        requested = _without_epochs(configuration)
        same = [trial for trial in self._study.trials if _without_epochs(trial.user_attrs.get(REQUESTED, {})) == requested]
        interrupted = sum(trial.state is TrialState.FAIL and not {ERROR, CUT} & trial.user_attrs.keys() for trial in same)
        return interrupted >= _INTERRUPTIONS or any(map(self._is_decided, same))

    def _is_decided(self, trial: FrozenTrial) -> bool:
        """Return whether a trial has ended for another reason than the time."""
        if trial.state is TrialState.COMPLETE:
            return self.runner.has_outputs(trial)
        out_of_time = SKIPPED in trial.user_attrs or trial.user_attrs.get(CUT) == TIME_UP
        return ERROR in trial.user_attrs or (trial.state is TrialState.PRUNED and not out_of_time)

    def _skip(self, configuration: Configuration) -> None:
        left = max(0.0, self._time.left(self.complete()))
        self.runner.skip(configuration, f"needs {self._time.cost(configuration)}, {left:.0f} s were left" if left else TIME_UP)

    def _like_best(self) -> dict[str, Any]:
        best = max(self._trained(), key=lambda trial: trial.value or 0.0, default=None)
        return dict(best.user_attrs[REQUESTED]) if best else dict(self._portfolio.queue[0])


def _without_epochs(configuration: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in configuration.items() if name != "epochs"}


def _nothing(trials: Sequence[FrozenTrial]) -> str:
    causes = sorted({str(trial.user_attrs[ERROR]) for trial in trials if ERROR in trial.user_attrs})
    listed = "; ".join(causes) or "the minutes were used up before one had ended"
    return f"none of {len(trials)} candidates completed: {listed}"
