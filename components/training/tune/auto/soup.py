"""After the selection: the weight average of the winner and similar candidates, if it is better on the validation rows."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from components.artifacts.manifest import base_folder
from components.artifacts.rows import read_rows
from components.core.temporary import temporary
from components.model import methods
from components.training.trainer.outputs import ValidationOutputs
from components.training.trainer.soup import greedy_soup
from components.training.tune.auto import selection
from components.training.tune.auto.budget import Budget
from components.training.tune.auto.finals import Selected, interval, resamples_of
from components.training.tune.auto.portfolio import OPTION
from components.training.tune.auto.trials import ENDED, NAME, OUTPUT_FOLDER, SOUP, ResolvedCandidate, SearchInputs, TrialClock, Trials
from components.training.tune.study import SECONDS, SETTINGS

log = logging.getLogger(__name__)

MEMBERS = "members"
FIRST = "first member"  # the number of the trial that the weight average improves
_REASON = "better than the best of its members by more than a standard error"


def average_if_better(
    inputs: SearchInputs, selected: Selected, complete: Sequence[FrozenTrial], trials: Trials, study: optuna.Study, budget: Budget
) -> Selected:
    """Return `selected` with a weight average as its winner, if that is better by more than a standard error of the difference.

    Candidates can be averaged if they share base, method and task options, and their weights are still on disk. A metric without a
    standard error allows no average.
    """
    if (known := _find_average(study, selected.winner)) is not None:
        return replace(selected, winner=known, reason=_REASON, optimism=None)
    members = [trial for trial in complete if _averages_with(trial, selected.winner) and _on_disk(inputs, trial, trials)]
    if len(members) < 2 or selected.winner not in members or budget.left() < sum(float(t.user_attrs[SECONDS]) for t in members) / 4:
        return selected
    started = budget.spent()
    budget.report_progress(phase="averaging weights", running="")
    ordered = sorted(members, key=lambda trial: trial.number != selected.winner.number)
    candidates = [inputs.resolve(trial.user_attrs[SETTINGS]) for trial in ordered]
    first = candidates[0]
    data = replace(inputs.data[first.settings.base], spec=first.spec)
    models = [_load_model(candidate, trials, inputs, budget) for candidate in candidates]
    values = [1.0, *(trial.value or 0.0 for trial in ordered[1:])]  # the winner first, whatever the others' values are
    base = base_folder(inputs.base, first.settings.base)
    values[0] = selected.winner.value or 0.0
    chosen, value, outputs = greedy_soup(first.task, models, values, base, data, first.settings)
    if outputs is None or 0 not in chosen:
        return selected
    error, gain_error = _errors(inputs, first, outputs, selected.winner)
    if not gain_error or value - (selected.winner.value or 0.0) <= gain_error:
        return selected
    others = [candidates[index] for index in chosen if index]
    soup = _record(inputs, study, ordered, chosen, others, first, value, outputs, budget.spent() - started, budget)
    log.info("the weight average of %d candidates has %s %.4f", len(chosen), inputs.tune.metric, value)
    intervals = {**selected.intervals, soup.number: interval(value, selection.Z * error)} if error else selected.intervals
    return replace(selected, winner=soup, reason=_REASON, intervals=intervals, optimism=None)


def _find_average(study: optuna.Study, winner: FrozenTrial) -> FrozenTrial | None:
    """Return the weight average that an earlier call recorded for the same winner."""
    return next((trial for trial in study.trials if trial.user_attrs.get(FIRST) == winner.number), None)


def _averages_with(trial: FrozenTrial, winner: FrozenTrial) -> bool:
    settings, others = trial.user_attrs[SETTINGS], winner.user_attrs[SETTINGS]
    shared = ("base", "method", *(name for name in {*settings, *others} if name.startswith(OPTION)))
    return methods.load(str(settings["method"])).IN_PLACE and all(settings.get(name) == others.get(name) for name in shared)


def _on_disk(inputs: SearchInputs, trial: FrozenTrial, trials: Trials) -> bool:
    return trials.checkpoints(inputs.resolve(trial.user_attrs[SETTINGS])).is_dir()


def _load_model(candidate: ResolvedCandidate, trials: Trials, inputs: SearchInputs, budget: Budget) -> object:
    """Return the finished model of a candidate."""
    with temporary() as folder:
        keep = partial(trials.checkpoint_paths, candidate, folder)
        result, _ = trials.fit(candidate, inputs.data[candidate.settings.base], keep=keep, clock=TrialClock(budget, target=None))
    return result.model


def _errors(inputs: SearchInputs, first: ResolvedCandidate, outputs: ValidationOutputs, winner: FrozenTrial) -> tuple[float, float]:
    """Return the standard errors of the average's score and of its gain; 0 if the metric needs all rows at once."""
    groups = read_rows(inputs.learn / "validation.parquet")["group"].astype(str).tolist()
    if not first.task.row_metrics or len(groups) != len(outputs.labels):
        return 0.0, 0.0
    both = (ValidationOutputs.read(inputs.folder / winner.user_attrs[OUTPUT_FOLDER]), outputs)

    def score(candidate: int, rows: selection.Ints) -> float:
        return float(first.task.validate(both[candidate].outputs[rows], both[candidate].labels[rows], first.spec)[inputs.tune.metric])

    resampled = selection.resample(score, 2, groups, seed=inputs.tune.seed, resamples=resamples_of(first.task, len(groups)))
    return float(resampled.errors()[1]), resampled.error_of_difference(0, 1)


def _record(
    inputs: SearchInputs,
    study: optuna.Study,
    ordered: Sequence[FrozenTrial],
    chosen: Sequence[int],
    others: Sequence[ResolvedCandidate],
    first: ResolvedCandidate,
    value: float,
    outputs: ValidationOutputs,
    seconds: float,
    budget: Budget,
) -> FrozenTrial:
    """Store the weight average as a trial of the study."""
    differences = [
        {name: setting for name, setting in member.settings.model_dump().items() if setting != getattr(first.settings, name)}
        for member in others
    ]
    output_folder = f"{study.study_name}/soup"
    (inputs.folder / output_folder).mkdir(parents=True, exist_ok=True)
    outputs.write(inputs.folder / output_folder)
    attributes = {
        NAME: "weight average of the candidates " + ", ".join(str(ordered[index].number) for index in chosen),
        SETTINGS: ordered[0].user_attrs[SETTINGS],
        SOUP: differences,
        FIRST: ordered[0].number,
        MEMBERS: [ordered[index].number for index in chosen],
        SECONDS: round(seconds, 2),
        ENDED: round(budget.spent(), 2),
        OUTPUT_FOLDER: output_folder,
    }
    study.add_trial(create_trial(state=TrialState.COMPLETE, value=value, user_attrs=attributes))
    return study.trials[-1]
