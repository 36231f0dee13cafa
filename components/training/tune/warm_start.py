"""What earlier searches found out, carried into a new one: a space that has grown begins with the trials that still lie in it.

Optuna refuses another space in the same study, and a study's name follows from its space. Trials are compared by all that their value
follows from: data, code, base, budget of a trial, and every setting, whether it was searched or fixed.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from components.training.trainer.settings import Value
from components.training.tune.settings import Dimension
from components.training.tune.storage import Studies

log = logging.getLogger(__name__)

CARRIED = "carried"  # of which study; such a trial uses up no budget
_CONTEXT, _FIXED, _BASES, _DONE = "context", "fixed", "bases", "carried over"


@dataclass(frozen=True)
class StudyContext:
    """What makes trials of two studies comparable: the digest of all that is no setting, the fixed settings, the space, the base models.

    `bases` has the digest of each base model by its name: names may differ between studies.
    """

    context: str
    fixed: Mapping[str, Value]
    space: Mapping[str, Dimension]
    bases: Mapping[str, str]


def warm_start(study: optuna.Study, studies: Studies, kin: StudyContext) -> int:
    """Fill the new `study` with the trials of the studies beside it that lie in its space; return how many.

    Only complete trials are carried, each settings once.
    """
    if study.user_attrs.get(_DONE):
        return 0
    study.set_user_attr(_FIXED, dict(kin.fixed))
    study.set_user_attr(_BASES, dict(kin.bases))
    study.set_user_attr(_CONTEXT, kin.context)  # last: who has it has the others too
    known: list[dict[str, Value]] = [dict(trial.params) for trial in study.trials]  # carried by a process that was killed meanwhile
    before = len(known)
    for other in _relatives(study.study_name, studies, kin):
        for trial in other.get_trials(states=(TrialState.COMPLETE,)):
            settings = {**other.user_attrs[_FIXED], **trial.user_attrs.get("settings", trial.params)}
            settings["base"] = _same_base(other.user_attrs[_BASES].get(settings["base"]), kin)
            if (params := _fitting(settings, kin)) is not None and params not in known:
                known.append(params)
                study.add_trial(_moved(trial, params, other.study_name, kin))
    study.set_user_attr(_DONE, True)
    if carried := len(known) - before:
        log.info("%d trials of earlier searches lie in this space and are carried over", carried)
    return carried


def _relatives(name: str, studies: Studies, kin: StudyContext) -> Iterator[optuna.Study]:
    """Yield the other studies with the same context, the oldest name first."""
    for other in studies.others(name):
        if other.user_attrs.get(_CONTEXT) == kin.context:
            yield other


def _same_base(digest: str | None, kin: StudyContext) -> str | None:
    """Return what the base model with these weights is called here."""
    return next((name for name, own in kin.bases.items() if own == digest), None)


def _fitting(settings: Mapping[str, Value], kin: StudyContext) -> dict[str, Value] | None:
    """Return the values of the dimensions that are searched with these `settings`; None where they do not lie in the space."""
    if any(settings.get(name, value) != value for name, value in kin.fixed.items() if name not in kin.space):
        return None
    active = {name: dimension for name, dimension in kin.space.items() if dimension.active(settings)}
    if any(name not in settings or not _holds(dimension, settings[name]) for name, dimension in active.items()):
        return None
    idle = {name for name in kin.space if name not in active}
    if any(settings.get(name, kin.fixed.get(name)) != kin.fixed.get(name) for name in idle):
        return None
    return {name: settings[name] for name in active}


def _holds(dimension: Dimension, value: Value) -> bool:
    """Whether a value lies in the range, and on its grid where there is one."""
    if not dimension.holds(value) or dimension.type == "categorical":
        return dimension.holds(value)
    if not isinstance(value, int | float) or (dimension.type == "int" and value != int(value)):
        return False
    steps = (value - (dimension.low or 0.0)) / dimension.step if dimension.step else 0.0
    return abs(steps - round(steps)) < 1e-9


def _moved(trial: FrozenTrial, params: Mapping[str, Value], study: str, kin: StudyContext) -> FrozenTrial:
    return create_trial(
        state=TrialState.COMPLETE,
        value=trial.value,
        params=dict(params),
        distributions={name: distribution(kin.space[name]) for name in params},
        user_attrs={**trial.user_attrs, "settings": {**{name: kin.fixed[name] for name in kin.space}, **params}, CARRIED: study},
        intermediate_values=trial.intermediate_values,
    )


def distribution(dimension: Dimension) -> BaseDistribution:
    """Return Optuna's distribution of a dimension, as the search's suggestions make it."""
    if dimension.type == "categorical":
        return CategoricalDistribution(dimension.choices)
    low, high = dimension.low or 0.0, dimension.high or 0.0
    if dimension.type == "int":
        return IntDistribution(int(low), int(high), log=dimension.log, step=int(dimension.step or 1))
    return FloatDistribution(low, high, log=dimension.log, step=dimension.step)
