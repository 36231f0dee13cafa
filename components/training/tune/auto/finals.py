"""The selection among the complete trials: intervals, repeated hold-outs for small data, and the smallest base model of equals."""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import optuna
import scipy
from optuna.trial import FrozenTrial
from pydantic import Field

from components.artifacts.base import Artifact
from components.artifacts.manifest import base_folder
from components.artifacts.rows import read_rows
from components.core.errors import NotFound, RetuneError
from components.model import tasks
from components.training.trainer.data import PreparedSplits
from components.training.trainer.outputs import ValidationOutputs
from components.training.tune.auto import selection
from components.training.tune.auto.budget import Budget
from components.training.tune.auto.holdouts import MOST_ROWS, holdouts, pooled_rows
from components.training.tune.auto.portfolio import PROBE
from components.training.tune.auto.trials import BEST, DONE, NAME, OUTPUT_FOLDER, ResolvedCandidate, SearchInputs, TrialClock, Trials
from components.training.tune.study import SECONDS, SETTINGS

log = logging.getLogger(__name__)

FINALISTS, FINAL_PROBES = 3, 2
HOLDOUTS, FEWEST = 5, 3
_FEW_RESAMPLES, _TOKEN_COMPARED, _MANY_ROWS = 20, 3, 20_000  # metrics of tokens or of many rows are slow
_COMPARED = 6  # candidates whose optimism and differences are computed


@dataclass(frozen=True)
class Interval:
    """A score with its 95 % interval, over a number of hold-outs."""

    score: float
    low: float
    high: float
    holdouts: int = 1


@dataclass(frozen=True)
class Selected:
    """The winner, the intervals by trial number, the optimism of the winner, and why it won."""

    winner: FrozenTrial
    reason: str
    intervals: dict[int, Interval] = field(default_factory=dict)
    optimism: tuple[float, float, float] | None = None
    notes: tuple[str, ...] = ()


class HoldoutScores(Artifact):
    """The scores of one candidate by the number of the hold-out."""

    FILE = "holdouts.json"

    scores: dict[int, float] = Field(default_factory=dict)


def resamples_of(task: tasks.Task, rows: int) -> int:
    """Return the number of resamples, fewer if each costs much."""
    return _FEW_RESAMPLES if task.by_token or rows > _MANY_ROWS else selection.RESAMPLES


def uses_holdouts(inputs: SearchInputs) -> bool:
    """Return whether the data are small enough for repeated hold-outs, and each row was encoded as one."""
    data = next(iter(inputs.data.values()))
    rows = [len(read_rows(inputs.learn / f"{split}.parquet")) for split in ("train", "validation")]
    return rows[0] <= MOST_ROWS and rows == [len(data.train), len(data.validation)]


def finalists(complete: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the best trained candidates and the best probes, the best first."""
    ranked = sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number))
    trained = [trial for trial in ranked if trial.user_attrs[SETTINGS]["method"] != PROBE][:FINALISTS]
    probes = [trial for trial in ranked if trial.user_attrs[SETTINGS]["method"] == PROBE][:FINAL_PROBES]
    return sorted([*trained, *probes], key=lambda trial: (-(trial.value or 0.0), trial.number))


def seconds_of_holdouts(complete: Sequence[FrozenTrial]) -> float:
    """Return the seconds that the fewest useful hold-outs of the finalists take."""
    return FEWEST * sum(map(_cost, finalists(complete)))


def select(inputs: SearchInputs, complete: Sequence[FrozenTrial], trials: Trials, budget: Budget) -> Selected:
    """Choose the winner of the `complete` trials."""
    budget.report_progress(phase="selecting", running="", step=0, steps=0)
    ranked = sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number))
    if uses_holdouts(inputs):
        return _by_holdouts(inputs, ranked, trials, budget)
    return _by_bootstrap(inputs, ranked)


def _by_bootstrap(inputs: SearchInputs, ranked: Sequence[FrozenTrial], notes: tuple[str, ...] = ()) -> Selected:
    """Compare candidates on the same resamples of the validation rows."""
    task, spec = inputs.resolve(ranked[0].user_attrs[SETTINGS]).task, next(iter(inputs.data.values())).spec
    compared = ranked[: _TOKEN_COMPARED if task.by_token else _COMPARED]
    outputs = [ValidationOutputs.read(inputs.folder / trial.user_attrs[OUTPUT_FOLDER]) for trial in compared]
    rows = read_rows(inputs.learn / "validation.parquet")
    if not task.row_metrics or any(len(output.labels) != len(rows) for output in outputs):
        reason = "the metric needs all rows at once" if not task.row_metrics else "a row is encoded as several"
        return Selected(ranked[0], "the best score", notes=(*notes, f"scores have no interval: {reason}"))

    def score(candidate: int, chosen: selection.Ints) -> float:
        return float(task.validate(outputs[candidate].outputs[chosen], outputs[candidate].labels[chosen], spec)[inputs.tune.metric])

    groups, resamples = rows["group"].astype(str).tolist(), resamples_of(task, len(rows))
    resampled = selection.resample(score, len(compared), groups, seed=inputs.tune.seed, resamples=resamples)
    errors = resampled.errors()
    intervals = {trial.number: interval(trial.value or 0.0, selection.Z * error) for trial, error in zip(compared, errors, strict=True)}
    costs = _sizes(inputs, compared)

    def choose(scores: selection.Floats) -> int:
        return selection.cheapest_of_equals(scores.tolist(), costs, resampled.error_of_difference)

    index = choose(np.array([trial.value or 0.0 for trial in compared]))
    return Selected(compared[index], _reason(compared, index), intervals, selection.optimism(resampled, choose), notes)


def interval(score: float, half: float, holdouts: int = 1) -> Interval:
    """Return the interval of a score; no metric is above 1."""
    return Interval(score, score - half, min(1.0, score + half), holdouts)


def _reason(ranked: Sequence[FrozenTrial], index: int) -> str:
    if index == 0:
        return "the best score"
    return f"not different from the best score ({ranked[0].user_attrs[NAME]}) by more than a standard error, and its base model is smaller"


def _sizes(inputs: SearchInputs, compared: Sequence[FrozenTrial]) -> list[float]:
    """Return the size of each candidate's base model in bytes: the cost of its answers grows with it, that of training is paid."""
    folders = [base_folder(inputs.base, inputs.resolve(trial.user_attrs[SETTINGS]).settings.base) for trial in compared]
    return [float(sum(path.stat().st_size for path in folder.glob("*.safetensors"))) for folder in folders]


def _by_holdouts(inputs: SearchInputs, ranked: Sequence[FrozenTrial], trials: Trials, budget: Budget) -> Selected:
    """Train the finalists on hold-outs, as long as the budget lasts, and compare their means."""
    measured = _holdout_scores(inputs, finalists(ranked), trials, budget)
    best, scores = [trial for trial, _ in measured], [row for _, row in measured]
    whole = min((len(row) for row in scores), default=0)
    if len(best) < 2 or whole < FEWEST:
        note = f"{whole} of {FEWEST} hold-outs fitted into the minutes, so one validation split decides"
        return _by_bootstrap(inputs, ranked, (note,) if len(ranked) > 1 else ())
    table = np.array([row[:whole] for row in scores])
    data = next(iter(inputs.data.values()))
    factor = 1 / whole + len(data.validation) / len(data.train)

    def error(first: int, second: int) -> float:
        return float(np.sqrt(factor * np.var(table[first] - table[second], ddof=1)))

    means, quantile = table.mean(axis=1), float(scipy.stats.t.ppf(0.975, whole - 1))
    order = np.argsort(-means, kind="stable")
    table, means, best = table[order], means[order], [best[index] for index in order]
    halves = quantile * np.sqrt(factor * table.var(axis=1, ddof=1))
    intervals = {trial.number: interval(float(mean), float(half), whole) for trial, mean, half in zip(best, means, halves, strict=True)}
    costs = _sizes(inputs, best)

    def choose(values: selection.Floats) -> int:
        return selection.cheapest_of_equals(values.tolist(), costs, error)

    index = choose(means)
    return Selected(best[index], _reason(best, index), intervals, selection.nested_optimism(table, choose))


def _holdout_scores(
    inputs: SearchInputs, compared: Sequence[FrozenTrial], trials: Trials, budget: Budget
) -> list[tuple[FrozenTrial, list[float]]]:
    """Return each finalist with its scores, as many as fit into the budget; a finalist that fails on a hold-out is left out.

    Every hold-out is measured for all before the next begins. A training ends at the share of its steps at which the candidate's weights
    were best, and is scored there, so that no selection touches the score.
    """
    known = {trial.number: _read_scores(inputs, trial) for trial in compared}
    rows, left = pooled_rows(inputs.learn), list(compared)
    candidates = {trial.number: inputs.resolve(trial.user_attrs[SETTINGS]) for trial in compared}
    holdouts_of = {number: holdouts(rows, inputs.data[candidate.settings.base], HOLDOUTS) for number, candidate in candidates.items()}
    budget.report_progress(phase="comparing the best on hold-outs")
    for number in range(HOLDOUTS):
        parts = {trial.number: next(holdouts_of[trial.number], None) for trial in compared}
        missing = [trial for trial in left if number not in known[trial.number].scores]
        if sum(map(_cost, missing)) > budget.left() or None in parts.values():
            break
        for trial in missing:
            budget.report_progress(running=f"{trial.user_attrs[NAME]}, hold-out {number + 1} of {HOLDOUTS}")
            clock = TrialClock(budget, until=float(trial.user_attrs.get(BEST, 1.0)))
            try:
                score = _score_holdout(trials, candidates[trial.number], cast(PreparedSplits, parts[trial.number]), clock)
            except optuna.TrialPruned:  # the budget is used up
                return [(trial, _whole(known[trial.number])) for trial in left]
            except RetuneError as error:
                log.warning("%s fails on a hold-out and is not compared: %s", trial.user_attrs[NAME], error)
                left.remove(trial)
                continue
            if not np.isfinite(score):
                log.warning("%s has no finite score on a hold-out and is not compared", trial.user_attrs[NAME])
                left.remove(trial)
                continue
            known[trial.number] = HoldoutScores(scores={**known[trial.number].scores, number: score})
            known[trial.number].write(inputs.folder / trial.user_attrs[OUTPUT_FOLDER])
    return [(trial, _whole(known[trial.number])) for trial in left]


def _score_holdout(trials: Trials, candidate: ResolvedCandidate, data: PreparedSplits, clock: TrialClock) -> float:
    """Train a candidate on a hold-out; return its last score."""
    scores: list[float] = []
    trials.fit(candidate, data, keep=None, clock=clock, watch=lambda _, value: scores.append(value))
    return scores[-1]


def _whole(known: HoldoutScores) -> list[float]:
    """Return the scores of the hold-outs up to the first that is missing."""
    return [known.scores[number] for number in itertools.takewhile(known.scores.__contains__, range(HOLDOUTS))]


def _cost(trial: FrozenTrial) -> float:
    """Return the seconds that a hold-out of a candidate takes."""
    done = max(float(trial.user_attrs.get(DONE, 1.0)), 1e-3)
    return float(trial.user_attrs[SECONDS]) * min(1.0, float(trial.user_attrs.get(BEST, 1.0)) / done)


def _read_scores(inputs: SearchInputs, trial: FrozenTrial) -> HoldoutScores:
    try:
        return HoldoutScores.read(inputs.folder / trial.user_attrs[OUTPUT_FOLDER])
    except NotFound:
        return HoldoutScores()
