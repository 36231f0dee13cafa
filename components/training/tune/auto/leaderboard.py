"""The leaderboard: every candidate with its score, its cost, and why it was stopped or chosen."""

import json
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from components.artifacts.tuning_result import Candidate, Leaderboard
from components.training.tune.auto.budget import Budget
from components.training.tune.auto.finals import Selected
from components.training.tune.auto.portfolio import OPTION, PROBE
from components.training.tune.auto.trials import ENDED, NAME, REQUESTED, SKIPPED, SOUP, SearchInputs
from components.training.tune.study import CUT, ERROR, SECONDS, SETTINGS
from components.training.tune.warm_start import CARRIED

_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed"}


def build(inputs: SearchInputs, trials: Sequence[FrozenTrial], selected: Selected, budget: Budget, notes: Sequence[str]) -> Leaderboard:
    """Return the leaderboard of a search, best first; equal scores in the order of the trials."""
    trials = _filter_shown(trials, selected)
    candidates = [_candidate(inputs, trial, selected) for trial in trials]
    first = next(iter(inputs.data.values()))
    return Leaderboard(
        metric=inputs.tune.metric,
        minutes=inputs.tune.minutes,
        seconds=round(budget.spent(), 2),
        validation_rows=len(first.validation),
        candidates=tuple(sorted(candidates, key=_rank)),
        optimism=selected.optimism,
        notes=tuple(dict.fromkeys([*notes, *_explain_skipped(candidates), *selected.notes])),
        plan=_plan(inputs, trials),
    )


def _filter_shown(trials: Sequence[FrozenTrial], selected: Selected) -> list[FrozenTrial]:
    """Return the last trial of each candidate, without interrupted ones and without weight averages that did not win."""
    shown: dict[str, FrozenTrial] = {}
    for trial in trials:
        interrupted = trial.state is TrialState.FAIL and not {ERROR, CUT} & trial.user_attrs.keys()
        lost = SOUP in trial.user_attrs and trial.number != selected.winner.number
        if NAME in trial.user_attrs and not interrupted and not lost:
            key = json.dumps(trial.user_attrs.get(REQUESTED, trial.number), sort_keys=True)
            if trial.number == selected.winner.number or key not in shown or shown[key].state is not TrialState.COMPLETE:
                shown[key] = trial
    return list(shown.values())


def sentence(board: Leaderboard) -> str:
    """Return the winner with its score in one sentence."""
    if (winner := board.winner) is None:
        return "no candidate"
    interval = f" ({winner.low:.3f} to {winner.high:.3f})" if winner.low is not None and winner.high is not None else ""
    return f"{winner.name}, {board.metric} {winner.score:.3f}{interval}: {winner.reason}"


def _rank(candidate: Candidate) -> tuple[int, float, float, int]:
    """Sort by the number of hold-outs, then by score: scores over several hold-outs are not comparable with those of one."""
    score = candidate.score if candidate.score is not None else float("-inf")
    return (candidate.state != "complete", -candidate.holdouts if candidate.state == "complete" else 0, -score, candidate.number)


def _candidate(inputs: SearchInputs, trial: FrozenTrial, selected: Selected) -> Candidate:
    configuration, attributes = trial.user_attrs[SETTINGS], trial.user_attrs
    interval = selected.intervals.get(trial.number)
    last = max(trial.intermediate_values, default=None)
    value = trial.value if trial.state is TrialState.COMPLETE else trial.intermediate_values[last] if last is not None else None
    won = trial.number == selected.winner.number
    seconds = float(attributes.get(SECONDS, 0.0))
    return Candidate(
        number=trial.number,
        name=attributes[NAME],
        base=str(configuration["base"]),
        method="weight average" if SOUP in attributes else str(configuration["method"]),
        settings={
            name: setting for name, setting in configuration.items() if not name.startswith(OPTION) and name not in ("base", "method")
        },
        task_options={name.removeprefix(OPTION): setting for name, setting in configuration.items() if name.startswith(OPTION)},
        state="skipped" if SKIPPED in attributes else _STATES[trial.state],
        reason=selected.reason if won else str(attributes.get(SKIPPED) or attributes.get(CUT) or attributes.get(ERROR) or ""),
        score=interval.score if interval else value,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        holdouts=interval.holdouts if interval else 1,
        seconds=seconds,
        share=0.0 if CARRIED in attributes else round(seconds / (60 * inputs.tune.minutes), 4),
        first_score=trial.value if trial.state is TrialState.COMPLETE else None,
        carried=CARRIED in attributes,
        ended_at=float(attributes.get(ENDED, 0.0)),
        winner=won,
    )


def _explain_skipped(candidates: Sequence[Candidate]) -> list[str]:
    """Return a note on the candidates that did not fit into the budget; none if all did."""
    left_out = [candidate for candidate in candidates if candidate.state == "skipped"]
    if not left_out:
        return []
    first = min(left_out, key=lambda candidate: candidate.number)
    return [f"more minutes are needed for {_count(len(left_out), 'candidate')}; the first, {first.name}: {first.reason}"]


def _plan(inputs: SearchInputs, trials: Sequence[FrozenTrial]) -> str:
    tried = [trial.user_attrs[SETTINGS]["method"] for trial in trials if not {SKIPPED, SOUP} & trial.user_attrs.keys()]
    probes = sum(method == PROBE for method in tried)
    rows = len(next(iter(inputs.data.values())).train)
    counts = f"{_count(probes, 'linear probe')} and {_count(len(tried) - probes, 'training')}"
    return f"{_count(inputs.tune.minutes, 'minute')} for {rows:,} training rows: {counts}"


def _count(number: float, name: str) -> str:
    return f"{number:g} {name}" if number == 1 else f"{number:g} {name}s"
