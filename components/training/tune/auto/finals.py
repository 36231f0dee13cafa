"""The selection among the complete trials: intervals, repeated hold-outs for small data, and the cheapest of equals."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy
from optuna.trial import FrozenTrial
from pydantic import Field

from components.artifacts.base import Artifact
from components.artifacts.rows import read_rows
from components.core.errors import NotFound
from components.training.trainer.callbacks import Watch
from components.training.trainer.outputs import ValidationOutputs
from components.training.tune.auto import selection
from components.training.tune.auto.budget import Budget
from components.training.tune.auto.holdouts import MOST_ROWS, holdouts, pooled_rows
from components.training.tune.auto.portfolio import PROBE
from components.training.tune.auto.trials import NAME, PLACE, SearchInputs, TrialClock, Trials
from components.training.tune.study import SECONDS, SETTINGS

log = logging.getLogger(__name__)

FINALISTS, FINAL_PROBES = 3, 2
HOLDOUTS, FEWEST = 5, 3
_LEAST_SECONDS, _MOST_SECONDS = 2.0, 20.0  # of the bootstrap
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
    return FEWEST * sum(float(trial.user_attrs[SECONDS]) for trial in finalists(complete))


def select(inputs: SearchInputs, complete: Sequence[FrozenTrial], trials: Trials, budget: Budget) -> Selected:
    """Choose the winner of the `complete` trials."""
    budget.tell(phase="selecting", running="", step=0, steps=0)
    ranked = sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number))
    if uses_holdouts(inputs):
        return _by_holdouts(inputs, ranked, trials, budget)
    return _by_bootstrap(inputs, ranked, budget)


def _by_bootstrap(inputs: SearchInputs, ranked: Sequence[FrozenTrial], budget: Budget, notes: tuple[str, ...] = ()) -> Selected:
    """Compare candidates on the same resamples of the validation rows."""
    task, spec = inputs.candidate(ranked[0].user_attrs[SETTINGS]).task, next(iter(inputs.data.values())).spec
    compared = ranked[:_COMPARED]
    outputs = [ValidationOutputs.read(inputs.folder / trial.user_attrs[PLACE]) for trial in compared]
    rows = read_rows(inputs.learn / "validation.parquet")
    if not task.row_metrics or any(len(each.labels) != len(rows) for each in outputs):
        winner = ranked[0]
        return Selected(winner, "the best score", notes=(*notes, "the metric needs all rows at once, so scores have no interval"))

    def score(candidate: int, chosen: selection.Ints) -> float:
        return float(task.validate(outputs[candidate].outputs[chosen], outputs[candidate].labels[chosen], spec)[inputs.tune.metric])

    seconds = max(_LEAST_SECONDS, min(_MOST_SECONDS, budget.left()))
    groups = rows["group"].astype(str).tolist()
    resampled = selection.resample(score, len(compared), groups, seed=inputs.tune.seed, seconds=seconds)
    errors = resampled.errors()
    intervals = {trial.number: interval(trial.value or 0.0, selection.Z * error) for trial, error in zip(compared, errors, strict=True)}
    scores, costs = [trial.value or 0.0 for trial in compared], [trial.user_attrs[SECONDS] for trial in compared]
    index = selection.cheapest_of_equals(scores, costs, resampled.error_of_difference)
    return Selected(compared[index], _reason(compared, index), intervals, selection.optimism(resampled), notes)


def interval(score: float, half: float, holdouts: int = 1) -> Interval:
    """Return the interval of a score; no metric is above 1."""
    return Interval(score, score - half, min(1.0, score + half), holdouts)


def _reason(ranked: Sequence[FrozenTrial], index: int) -> str:
    if index == 0:
        return "the best score"
    return f"not different from the best score ({ranked[0].user_attrs[NAME]}) by more than a standard error, and cheaper"


def _by_holdouts(inputs: SearchInputs, ranked: Sequence[FrozenTrial], trials: Trials, budget: Budget) -> Selected:
    """Train the finalists on other splits of the same rows, as long as the budget lasts, and compare their means."""
    best = finalists(ranked)
    scores = _holdout_scores(inputs, best, trials, budget)
    whole = min(len(row) for row in scores)
    if len(best) < 2 or whole < FEWEST:
        note = f"{whole} of {FEWEST} hold-outs fitted into the minutes, so one validation split decides"
        return _by_bootstrap(inputs, ranked, budget, (note,) if len(best) > 1 else ())
    table = np.array([row[:whole] for row in scores])
    first = next(iter(inputs.data.values()))
    factor = 1 / whole + len(first.validation) / len(first.train)

    def error(one: int, other: int) -> float:
        return float(np.sqrt(factor * np.var(table[one] - table[other], ddof=1)))

    means, quantile = table.mean(axis=1), float(scipy.stats.t.ppf(0.975, whole - 1))
    order = np.argsort(-means, kind="stable")
    table, means, best = table[order], means[order], [best[index] for index in order]
    halves = quantile * np.sqrt(factor * table.var(axis=1, ddof=1))
    intervals = {trial.number: interval(float(mean), float(half), whole) for trial, mean, half in zip(best, means, halves, strict=True)}
    index = selection.cheapest_of_equals(means.tolist(), [trial.user_attrs[SECONDS] for trial in best], error)
    return Selected(best[index], _reason(best, index), intervals, selection.nested_optimism(table))


def _holdout_scores(inputs: SearchInputs, finalists: Sequence[FrozenTrial], trials: Trials, budget: Budget) -> list[list[float]]:
    """Return each finalist's scores, as many as fit into the budget; every hold-out is measured for all before the next begins.

    The scores are those of the last evaluation, which no selection has touched.
    """
    known = [_known(inputs, trial) for trial in finalists]
    rows = pooled_rows(inputs.learn)
    made = [inputs.candidate(trial.user_attrs[SETTINGS]) for trial in finalists]
    splits = [holdouts(rows, inputs.data[each.settings.base], HOLDOUTS, inputs.tune.seed) for each in made]
    budget.tell(phase="comparing the best on other splits")
    for number in range(HOLDOUTS):
        parts = [next(split) for split in splits]
        missing = [index for index in range(len(finalists)) if number not in known[index].scores]
        if sum(finalists[index].user_attrs[SECONDS] for index in missing) > budget.left():
            break
        for index in missing:
            last: list[float] = []
            budget.tell(running=f"{finalists[index].user_attrs[NAME]}, split {number + 1} of {HOLDOUTS}")
            clock = TrialClock(budget, None, may_stop=False)
            trials.fit(made[index], parts[index], keep=None, clock=clock, watch=_appending(last))
            known[index] = HoldoutScores(scores={**known[index].scores, number: last[-1]})
            known[index].write(inputs.folder / finalists[index].user_attrs[PLACE])
    return [[each.scores[number] for number in range(HOLDOUTS) if number in each.scores] for each in known]


def _appending(values: list[float]) -> Watch:
    return lambda _, value: values.append(value)


def _known(inputs: SearchInputs, trial: FrozenTrial) -> HoldoutScores:
    try:
        return HoldoutScores.read(inputs.folder / trial.user_attrs[PLACE])
    except NotFound:
        return HoldoutScores()
