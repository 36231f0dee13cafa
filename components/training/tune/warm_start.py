"""Warm start: a new study takes over the comparable trials of earlier studies that are in its space, e.g. after the space has grown.

Optuna refuses a changed space in the same study, and a study's name depends on its space. Trials are comparable if everything that
their value depends on is equal: data, code, base, budget of a trial, and every setting, searched or fixed.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

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


def warm_start(study: optuna.Study, studies: Studies, target: StudyContext) -> int:
    """Copy the comparable trials of other studies that are in the space of `study` into it; return their number.

    Only complete trials are copied, and none with settings that are already present.
    """
    if study.user_attrs.get(_DONE):
        return 0
    study.set_user_attr(_FIXED, dict(target.fixed))
    study.set_user_attr(_BASES, dict(target.bases))
    study.set_user_attr(_CONTEXT, target.context)  # last: it implies that the others are set
    known: list[dict[str, Value]] = [dict(trial.params) for trial in study.trials]  # copied by a process that was killed
    before = len(known)
    for source in studies.others(study.study_name):
        if source.user_attrs.get(_CONTEXT) != target.context:
            continue
        for trial in source.get_trials(states=(TrialState.COMPLETE,)):
            settings = {**source.user_attrs[_FIXED], **trial.user_attrs.get("settings", trial.params)}
            digest = source.user_attrs[_BASES].get(settings["base"])
            settings["base"] = next((name for name, own_digest in target.bases.items() if own_digest == digest), None)
            params = _fitting(settings, target)
            if params is None or params in known:
                continue
            try:
                copied = _copied(trial, params, source.study_name, target)
            except ValueError as error:  # a value is of another type, outside its range, or not on its grid
                log.info("trial %d of study %s is not carried over: %s", trial.number, source.study_name, error)
                continue
            study.add_trial(copied)
            known.append(params)
    study.set_user_attr(_DONE, True)
    if carried := len(known) - before:
        log.info("%d trials of earlier searches are in this space and are carried over", carried)
    return carried


def _fitting(settings: Mapping[str, Value], target: StudyContext) -> dict[str, Value] | None:
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


def _copied(trial: FrozenTrial, params: Mapping[str, Value], study: str, target: StudyContext) -> FrozenTrial:
    for name, value in params.items():
        if not target.space[name].contains(value):  # Optuna reads a text as a number
            raise ValueError(f"{name} {value!r} is not in its range")
    return create_trial(
        state=TrialState.COMPLETE,
        value=trial.value,
        params=dict(params),
        distributions={name: distribution(target.space[name]) for name in params},
        user_attrs={**trial.user_attrs, "settings": {**{name: target.fixed[name] for name in target.space}, **params}, CARRIED: study},
        intermediate_values=trial.intermediate_values,
    )


def distribution(dimension: Dimension) -> BaseDistribution:
    """Return Optuna's distribution of a dimension, equal to that of the search's suggestions."""
    if dimension.type == "categorical":
        return CategoricalDistribution(dimension.choices)
    low, high = dimension.low or 0.0, dimension.high or 0.0
    if dimension.type == "int":
        return IntDistribution(int(low), int(high), log=dimension.log, step=int(dimension.step or 1))
    return FloatDistribution(low, high, log=dimension.log, step=dimension.step)
