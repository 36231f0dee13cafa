"""Warm start: a new study starts with the comparable trials of earlier studies that are in its space, e.g. after the space has grown.

Optuna refuses a changed space in the same study, and a study's name depends on its space. Trials are comparable if everything that
their value depends on is equal: data, code, base, budget of a trial, and every setting, searched or fixed.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from components.artifacts.manifest import OTHERS, base_folder
from components.core.hashing import digest_folder
from components.training.trainer.settings import Value
from components.training.tune.settings import Dimension
from components.training.tune.storage import Studies

log = logging.getLogger(__name__)

CARRIED = "carried"  # the study that the trial comes from; such a trial uses up no budget
_CONTEXT, _FIXED, _BASES, _DONE = "context", "fixed", "bases", "carried over"


@dataclass(frozen=True)
class StudyContext:
    """The inputs of a study that make trials comparable.

    `context` is a digest of everything except settings. `bases` has the digest of each base model by name; names may differ.
    """

    context: str
    fixed: Mapping[str, Value]
    space: Mapping[str, Dimension]
    bases: Mapping[str, str]


def base_digests(base: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the digest of each base model by name."""
    return {name: digest_folder(base_folder(base, name), exclude=["manifest.json", OTHERS]) for name in names}


def warm_start(study: optuna.Study, studies: Studies, target: StudyContext) -> int:
    """Carry the comparable trials of other studies over into `study` if they are in its space; return their number."""
    if study.user_attrs.get(_DONE):
        return 0
    study.set_user_attr(_FIXED, dict(target.fixed))
    study.set_user_attr(_BASES, dict(target.bases))
    study.set_user_attr(_CONTEXT, target.context)  # last: it implies that the others are set
    sources = (source for source in studies.others(study.study_name) if source.user_attrs.get(_CONTEXT) == target.context)

    def copy(source: optuna.Study, trial: FrozenTrial) -> FrozenTrial | None:
        settings = {**source.user_attrs[_FIXED], **trial.user_attrs.get("settings", trial.params)}
        digest = source.user_attrs[_BASES].get(settings["base"])
        settings["base"] = next((name for name, own_digest in target.bases.items() if own_digest == digest), None)
        if (params := _select_params(settings, target)) is None:
            return None
        complete = {**{name: target.fixed[name] for name in target.space}, **params}
        return copy_trial(trial, params, target.space, {"settings": complete, CARRIED: source.study_name})

    number = carry_over(study, sources, copy, lambda trial: trial.params)
    study.set_user_attr(_DONE, True)
    if number:
        log.info("%d trials of earlier searches are in this space and are carried over", number)
    return number


def carry_over(
    study: optuna.Study,
    sources: Iterable[optuna.Study],
    copy: Callable[[optuna.Study, FrozenTrial], FrozenTrial | None],
    key: Callable[[FrozenTrial], object],
) -> int:
    """Add a copy of each complete trial of `sources` to `study`, unless it has one with the same `key`; return the number of copies.

    `copy` takes a source and its trial. It returns None for a trial that is not comparable, and raises ValueError for a value that is not
    in the space.
    """
    known = [key(trial) for trial in study.trials]  # a process that was killed may have copied some
    before = len(known)
    for source in sources:
        for trial in source.get_trials(states=(TrialState.COMPLETE,)):
            try:
                copied = copy(source, trial)
            except ValueError as error:
                log.info("trial %d of study %s is not carried over: %s", trial.number, source.study_name, error)
                continue
            if copied is not None and key(copied) not in known:
                study.add_trial(copied)
                known.append(key(copied))
    return len(known) - before


def copy_trial(
    trial: FrozenTrial, params: Mapping[str, Value], space: Mapping[str, Dimension], attributes: Mapping[str, Any]
) -> FrozenTrial:
    """Return a copy of a complete `trial` with `params` of `space`; `attributes` replace those of the trial.

    Raises:
        ValueError: a value is of another type, outside its range, or not on its grid.
    """
    for name, value in params.items():
        if not space[name].contains(value):  # Optuna reads a text as a number
            raise ValueError(f"{name} {value!r} is not in its range")
    return create_trial(
        state=TrialState.COMPLETE,
        value=trial.value,
        params=dict(params),
        distributions={name: distribution(space[name]) for name in params},
        user_attrs={**trial.user_attrs, **attributes},
        intermediate_values=trial.intermediate_values,
    )


def _select_params(settings: Mapping[str, Value], target: StudyContext) -> dict[str, Value] | None:
    """Return the values of the dimensions that are searched with these `settings`; None if a fixed or idle field differs."""
    if any(settings.get(name, value) != value for name, value in target.fixed.items() if name not in target.space):
        return None
    active = {name: dimension for name, dimension in target.space.items() if dimension.active(settings)}
    if not active.keys() <= settings.keys():
        return None
    idle = {name for name in target.space if name not in active}
    if any(settings.get(name, target.fixed.get(name)) != target.fixed.get(name) for name in idle):
        return None
    return {name: settings[name] for name in active}


def distribution(dimension: Dimension) -> BaseDistribution:
    """Return Optuna's distribution of a dimension, equal to that of the search's suggestions."""
    if dimension.type == "categorical":
        return CategoricalDistribution(dimension.choices)
    low, high = dimension.low or 0.0, dimension.high or 0.0
    if dimension.type == "int":
        return IntDistribution(int(low), int(high), log=dimension.log, step=int(dimension.step or 1))
    return FloatDistribution(low, high, log=dimension.log, step=dimension.step)
