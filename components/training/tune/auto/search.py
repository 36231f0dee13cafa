"""The search of the strategy `auto`: probes, the portfolio, the sampler, the selection, and the files of the step `tune`."""

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from components.artifacts.manifest import OTHERS, base_folder, base_names
from components.artifacts.rows import read_rows
from components.artifacts.training import ModelSpec
from components.core.errors import BadParams, RetuneError
from components.core.hashing import digest_folder, digest_sources, digest_value
from components.core.output_dir import fresh
from components.core.section import OpenSection
from components.model import tasks
from components.training.trainer import TrainSection, hardware
from components.training.trainer.data import PreparedSplits
from components.training.trainer.identity import CODE, digest_inputs
from components.training.trainer.state_dir import state_folder
from components.training.tune import tuning_artifacts
from components.training.tune.auto import earlier, finals, leaderboard, soup
from components.training.tune.auto.budget import Budget
from components.training.tune.auto.portfolio import PROBE, Configuration, Portfolio, build
from components.training.tune.auto.speed import Speed
from components.training.tune.auto.trials import SKIPPED, SOUP, SearchInputs, Trials
from components.training.tune.objective import suggest
from components.training.tune.run_search import refuse_different_tokenizers
from components.training.tune.settings import TuneParams
from components.training.tune.study import ERROR, SECONDS, SETTINGS, open_study, sampler

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_FOR_HOLDOUTS, _FOR_SELECTION = 0.35, 0.03  # parts of the budget that trials leave
_SHORTENED = 0.5  # a candidate is tried with fewer epochs only down to this part
_MISFITS = 8  # sampled candidates in a row that do not fit into the time: the end
_UNCHANGED = 15  # sampled candidates in a row that are no better: the end
_PERFECT = 1.0  # no metric is higher
_KEPT = 3  # candidates whose weights stay on disk during the search


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
    data = {each: PreparedSplits.read(learn, each) for each in bases}
    refuse_different_tokenizers(task, data, "tune.candidates.bases")
    inputs = {each: digest_inputs(learn, base_folder(base, each)) for each in bases}
    portfolio = build(task, task_options.fields, train, tune.candidates, bases, len(data[bases[0]].train))
    setting = _setting(task, tune, train, task_options, learn, inputs, base)
    identity = digest_value([setting.context, sorted(setting.bases.items()), portfolio.probes, portfolio.queue, sorted(portfolio.space)])[
        :16
    ]
    shared = SearchInputs(name, task_options, learn, base, tune, train, data, inputs, state_folder("auto"))
    speeds = {
        each: Speed(task, base_folder(base, each), digest_folder(base_folder(base, each), exclude=[MANIFEST, OTHERS]), data[each])
        for each in bases
    }
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=4, reduction_factor=2)
    with Budget(identity, tune.minutes, tune.metric).running() as budget, open_study(identity, tune, {}, None, pruner) as study:
        previous = earlier.take_over(study, setting, portfolio)
        run = AutoSearch(shared, study, budget, portfolio, speeds, previous)
        run.trials()
        complete = run.complete()
        if not complete:
            raise RetuneError(_nothing(study.trials))
        selected = finals.select(shared, complete, run.runner, budget)
        selected = soup.improved(shared, selected, complete, run.runner, study, budget)
        run.keep([selected.winner, *(trial for trial in complete if SOUP in selected.winner.user_attrs)])
        earlier.remember(study, selected.winner.user_attrs[SETTINGS])
        chosen = shared.candidate(selected.winner.user_attrs[SETTINGS])
        best = tuning_artifacts.best_of(study, complete, selected.winner, tune.metric, run.stopped_by, chosen.fields)
        board = leaderboard.build(shared, study.trials, selected, budget, run.notes)
        shown = [trial for trial in study.trials if SKIPPED not in trial.user_attrs]
        members = selected.winner.user_attrs.get(SOUP, ())
        tuning_artifacts.write(fresh(out), best, shown, options=chosen.options, soup=members, board=board)
    log.info("chosen from %d candidates: %s", len(complete), leaderboard.sentence(board))


class AutoSearch:
    """Chooses what to try next, within the budget."""

    def __init__(
        self,
        inputs: SearchInputs,
        study: optuna.Study,
        budget: Budget,
        portfolio: Portfolio,
        speeds: Mapping[str, Speed],
        previous: earlier.Previous | None,
    ) -> None:
        self._inputs, self._study, self._budget, self._portfolio, self._speeds = inputs, study, budget, portfolio, speeds
        self.runner = Trials(inputs, study, budget)
        self.notes: list[str] = []
        self.stopped_by = "portfolio"
        self._previous = previous
        if previous is not None and previous.share < 1:
            budget.seconds *= previous.share
            text = "%.0f %% of the rows changed since the last search, so it uses %.1f of the %g minutes"
            self.notes.append(text % (100 * previous.moved, budget.seconds / 60, inputs.tune.minutes))
        self._by_holdouts = finals.uses_holdouts(inputs)

    def complete(self) -> list[FrozenTrial]:
        """Return the trials that have a score."""
        return [trial for trial in self._study.trials if trial.state is TrialState.COMPLETE and SOUP not in trial.user_attrs]

    def trials(self) -> None:
        """Run the probes, then the portfolio, then values that the sampler suggests, until the time for trials is over."""
        self._refuse_too_few_minutes()
        self._budget.tell(phase="linear probes")
        for configuration in self._portfolio.probes:
            if not self._known(configuration):
                self._run(self._study.ask(), configuration)
        self._budget.tell(phase="portfolio")
        for configuration in self._queue():
            if self._known(configuration):
                continue
            fitting = self._fitting(configuration)
            if fitting is None:
                self._skip(configuration)
            else:
                self._study.enqueue_trial({field: fitting.get(field, self._portfolio.defaults[field]) for field in self._active(fitting)})
                trial = self._study.ask()
                suggest(trial, self._portfolio.space, self._portfolio.defaults)  # takes the enqueued values, for the sampler to learn from
                self._run(trial, fitting)
        if not self.complete():
            self._run_cheapest()
        self._budget.tell(phase="searching around the best")
        self._sample()

    def _sample(self) -> None:
        """Run sampled trials until nothing fits into the time any more, or nothing gets better."""
        misfits = unchanged = 0
        if not self._portfolio.space:
            return
        while misfits < _MISFITS and unchanged < _UNCHANGED and self._left() > 0 and self._best() < _PERFECT:
            self._study.sampler = sampler(self._inputs.tune, len(self._study.trials))
            trial = self._study.ask()
            configuration = {**self._like_best(), **suggest(trial, self._portfolio.space, self._portfolio.defaults)}
            if self._fitting(configuration) != configuration:
                trial.set_user_attr(SKIPPED, "does not fit into the time")
                self._study.tell(trial, state=TrialState.PRUNED)
                misfits += 1
                continue
            best = self._best()
            done = self._run(trial, configuration)
            better = done.state is TrialState.COMPLETE and (done.value or 0.0) > best
            misfits, unchanged = 0, 0 if better else unchanged + 1
        self.stopped_by = "no better candidates" if unchanged >= _UNCHANGED or self._best() >= _PERFECT else "max_minutes"

    def _run_cheapest(self) -> None:
        """Run the candidate that takes the least time, although a killed process has used up the minutes."""
        untrained = self._portfolio.probes[:1]
        queue = untrained or tuple({**c, "epochs": min(1.0, c["epochs"])} for c in self._portfolio.queue)
        for configuration in sorted(queue, key=lambda each: each.get("epochs", 0) * each.get("batch_size", 1)):
            if not self.complete():
                self._run(self._study.ask(), configuration)

    def _best(self) -> float:
        return max((trial.value or 0.0 for trial in self.complete()), default=-math.inf)

    def _run(self, trial: optuna.Trial, configuration: Configuration) -> FrozenTrial:
        done = self.runner.run(trial, configuration)
        if done.state is TrialState.COMPLETE and configuration["method"] != PROBE:
            made = self._inputs.candidate(configuration)
            self._speeds[made.settings.base].correct(made.settings, done.user_attrs[SECONDS])
        self.keep(sorted(self.complete(), key=lambda each: -(each.value or 0.0))[:_KEPT])
        return done

    def keep(self, best: Sequence[FrozenTrial]) -> None:
        """Remove the weights of all trials except `best`."""
        kept = {self.runner.checkpoints(self._inputs.candidate(trial.user_attrs[SETTINGS])) for trial in best}
        for trial in self.complete():
            folder = self.runner.checkpoints(self._inputs.candidate(trial.user_attrs[SETTINGS]))
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _queue(self) -> list[dict[str, Any]]:
        """Return the portfolio, the base with the best probe first."""
        scores: dict[str, float] = {}
        for trial in self.complete():
            base = str(trial.user_attrs[SETTINGS]["base"])
            scores[base] = max(scores.get(base, 0.0), trial.value or 0.0)
        queue = sorted(self._portfolio.queue, key=lambda configuration: -scores.get(str(configuration["base"]), 0.0))
        before = self._previous.winner if self._previous else None
        usable = before is not None and before["method"] != PROBE and self._inspace(before)
        return [dict(before), *queue] if usable and before else queue

    def _inspace(self, configuration: Configuration) -> bool:
        """Return whether the search space contains a configuration of an earlier search."""
        space = self._portfolio.space
        return all(name in configuration and space[name].contains(configuration[name]) for name in self._active(configuration))

    def _active(self, configuration: Configuration) -> list[str]:
        return [name for name, dimension in self._portfolio.space.items() if dimension.active(configuration)]

    def _known(self, configuration: Configuration) -> bool:
        """Return whether a trial of this search, or an equal one of an earlier search, has tried `configuration` with any epochs."""
        wanted = {name: value for name, value in configuration.items() if name != "epochs"}
        return any(
            {name: value for name, value in trial.user_attrs.get(SETTINGS, {}).items() if name != "epochs"} == wanted
            for trial in self._study.trials
            if trial.state.is_finished() and (trial.state is not TrialState.FAIL or ERROR in trial.user_attrs)
        )

    def _left(self) -> float:
        """Return the seconds that trials may still use."""
        return self._budget.left() - self._reserve()

    def _reserve(self) -> float:
        """Return the seconds that the selection needs: hold-outs of the best, if they fit, or a bootstrap."""
        most, least = _FOR_HOLDOUTS * self._budget.seconds, _FOR_SELECTION * self._budget.seconds
        needed = finals.seconds_of_holdouts(self.complete())
        return least if not self._by_holdouts or needed > most else most

    def _fitting(self, configuration: dict[str, Any]) -> dict[str, Any] | None:
        """Return the configuration with the epochs that fit into the time; None if too few fit."""
        made = self._inputs.candidate(configuration)
        speed = self._speeds[made.settings.base]
        fitting = speed.epochs(made.settings, self._left())
        if fitting == made.settings.epochs:
            return configuration
        trained = any(trial.user_attrs[SETTINGS]["method"] != PROBE for trial in self.complete())
        fewest = made.settings.epochs * _SHORTENED if trained else min(1.0, made.settings.epochs)
        if "epochs" in self._inputs.train.fixed.model_fields_set or fitting < fewest:
            return None
        return {**configuration, "epochs": fitting}

    def _skip(self, configuration: Configuration) -> None:
        made = self._inputs.candidate(configuration)
        needed = self._speeds[made.settings.base].seconds(made.settings)
        self.runner.skip(configuration, f"needs about {needed:.0f} s, {max(0.0, self._left()):.0f} s were left")

    def _like_best(self) -> dict[str, Any]:
        trained = [trial for trial in self.complete() if trial.user_attrs[SETTINGS]["method"] != PROBE]
        best = max(trained, key=lambda trial: trial.value or 0.0, default=None)
        return dict(best.user_attrs[SETTINGS]) if best else dict(self._portfolio.queue[0])

    def _refuse_too_few_minutes(self) -> None:
        if self.complete():
            return
        costs = []
        for configuration in (*self._portfolio.probes, *self._portfolio.queue):
            if configuration["method"] == PROBE:
                full = self._inputs.candidate({**configuration, "method": "full", "epochs": 1.0})
                costs.append(self._speeds[full.settings.base].seconds(full.settings) / 2)
            else:
                made = self._inputs.candidate(configuration)
                least = made.settings.model_copy(update={"epochs": min(1.0, made.settings.epochs)})
                costs.append(self._speeds[made.settings.base].seconds(least))
        if min(costs) > self._left():
            needed = (min(costs) + self._budget.spent()) / (60 * (1 - _FOR_HOLDOUTS))
            raise BadParams(
                f"params.yaml: tune.minutes {self._inputs.tune.minutes:g} are too few for one candidate on this machine; "
                f"expected at least {needed:.1f}"
            )


def _setting(
    task: tasks.Task, tune: TuneParams, train: TrainSection, options: OpenSection, learn: Path, inputs: Mapping[str, str], base: Path
) -> earlier.Setting:
    """Return what makes other searches comparable with this one."""
    machine = [hardware.set_threads(train.fixed.threads), hardware.device(), hardware.precision(train.fixed)]
    written = {name: getattr(train.fixed, name) for name in sorted(train.fixed.model_fields_set)}
    scope = ["auto", ModelSpec.read(learn).task, tune.metric, options.fields, written]
    data = [digest_folder(learn, exclude=[OTHERS]), digest_sources(*CODE)]
    texts = read_rows(learn / "train.parquet")["text"].astype(str).tolist()
    bases = {name: digest_folder(base_folder(base, name), exclude=[MANIFEST, OTHERS]) for name in inputs}
    return earlier.Setting(digest_value([*scope, *machine, tune.seed, *data]), digest_value(scope), bases, earlier.sketch(texts))


def _nothing(trials: Sequence[FrozenTrial]) -> str:
    causes = sorted({str(trial.user_attrs[ERROR]) for trial in trials if ERROR in trial.user_attrs})
    listed = "; ".join(causes) or "the minutes were used up before one had ended"
    return f"none of {len(trials)} candidates completed: {listed}"
