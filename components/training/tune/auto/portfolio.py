"""The candidates of a search: a queue and a search space, built from the task's portfolio, the base models and params.yaml.

A configuration is a flat mapping: fields of `train`, and options of the task with the prefix `task_options.`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.core.errors import BadParams
from components.core.section import nearest
from components.model import methods, tasks
from components.training.trainer import TrainParams
from components.training.trainer.settings import TrainSection, Value
from components.training.tune.settings import CandidateChoices, Dimension, sort_by_condition

OPTION = "task_options."
PROBE = "probe"
FEWEST_STEPS = 200
"""The optimizer steps that a fine-tuning gets at least: small data need more epochs, not fewer."""
MOST_EPOCHS = 40.0
_EVALUATIONS = 4  # at least, of a training
_PATIENCE = 4
_CONDITIONS = {"lora_rank": "lora", "lora_alpha": "lora", "lora_targets": "lora", "frozen_layers": "freeze"}
_NEAR = 0.5  # standard deviation of the logarithm of a number, of candidates near another
_OTHER_CHOICE = 0.15  # probability of another choice
_WIDER = 3.0  # the range of a number reaches this factor beyond the portfolio

Configuration = Mapping[str, Any]


@dataclass(frozen=True)
class Portfolio:
    """The configurations to try: `probes`, then `queue`, then values in `space`; `defaults` has the fields that a configuration omits."""

    probes: tuple[dict[str, Any], ...]
    queue: tuple[dict[str, Any], ...]
    space: dict[str, Dimension]
    defaults: dict[str, Any]

    def active(self, configuration: Configuration) -> list[str]:
        """Return the fields of `space` that matter for a configuration."""
        return [name for name, dimension in self.space.items() if dimension.active(configuration)]

    def near(self, configuration: Configuration, draws: np.random.Generator) -> dict[str, Any]:
        """Return the configuration with other numbers, and sometimes another choice of a field, in `space`; the method stays."""
        moved = dict(configuration)
        for name in self.active(configuration):
            dimension, value = self.space[name], configuration.get(name, self.defaults[name])
            if dimension.low is not None and dimension.high is not None:
                moved[name] = min(max(float(value) * math.exp(draws.normal(0, _NEAR)), dimension.low), dimension.high)
            elif name != "method" and draws.random() < _OTHER_CHOICE:
                others = [choice for choice in dimension.choices if choice != value]
                moved[name] = others[int(draws.integers(len(others)))]
        return moved


def build(
    task: tasks.Task, options: Mapping[str, Any], train: TrainSection, choices: CandidateChoices, bases: Sequence[str], rows: int
) -> Portfolio:
    """Return the portfolio of `task` for training with `rows` rows; values stated in `options` (of the task) and `train` are kept.

    Raises:
        BadParams: a base model or method is unknown, or nothing is left to try.
    """
    _check(choices, bases)
    stated = {**{name: getattr(train.fixed, name) for name in train.fixed.model_fields_set}, **{OPTION + n: v for n, v in options.items()}}
    defaults = train.fixed.model_dump() | {OPTION + name: value for name, value in task.options.model_dump().items()}
    allowed = [{stated["method"]}] if "method" in stated else []
    allowed += [set(choices.methods)] if choices.methods else []
    chosen_bases = [stated["base"]] if "base" in stated else [name for name in bases if not choices.bases or name in choices.bases]
    configurations = []
    for given in task.portfolio:
        configuration = {name: stated.get(name, value) for name, value in {"method": "full", **given}.items()}
        configuration["method"] = given.get("method", "full")
        if any(configuration["method"] not in names for names in allowed) or not _accepts(configuration, task, options):
            continue
        configuration = _fit_to_rows(configuration, stated, task, rows)
        configurations += [configuration] if configuration not in configurations else []
    if not configurations:
        raise BadParams(f"params.yaml: tune.strategy auto has nothing to try: {_nothing(task, stated, choices)}")
    probes = [c | {"base": base} for base in chosen_bases for c in configurations if c["method"] == PROBE]
    queue = [c | {"base": base} for base in chosen_bases for c in configurations if c["method"] != PROBE]
    space = _space(queue, defaults, stated)
    return Portfolio(tuple(probes), tuple(queue), {name: space[name] for name in sort_by_condition(space)}, defaults)


def _nothing(task: tasks.Task, stated: Mapping[str, Any], choices: CandidateChoices) -> str:
    """Return why no configuration is left, and what to change."""
    if not task.portfolio:
        return "the task has no portfolio (`Task.portfolio`, docs/add-a-task.md); set tune.strategy search, or none"
    tried = ", ".join(sorted({str(given.get("method", "full")) for given in task.portfolio}))
    if "method" in stated and choices.methods:
        return f"train.method is {stated['method']}, and tune.candidates.methods is [{', '.join(choices.methods)}]; remove one of them"
    if "method" in stated:
        return f"train.method is {stated['method']}, and the task's portfolio has {tried}; remove it, or set tune.strategy search"
    return f"the task's portfolio has {tried}; change tune.candidates.methods or task_options, or set tune.strategy search"


def _accepts(configuration: Configuration, task: tasks.Task, options: Mapping[str, Any]) -> bool:
    """Return whether the task accepts the configuration's options beside the stated ones, and the method."""
    own = {name.removeprefix(OPTION): value for name, value in configuration.items() if name.startswith(OPTION)}
    try:
        task.Options.parse({**own, **options}, "task_options")
    except BadParams:
        return False
    return configuration["method"] != PROBE or "head_start" not in task.unsupported_settings


def _check(choices: CandidateChoices, bases: Sequence[str]) -> None:
    for field, names, known in (("bases", choices.bases, list(bases)), ("methods", choices.methods, methods.available())):
        if unknown := [name for name in names if name not in known]:
            raise BadParams(
                f"params.yaml: tune.candidates.{field}: {unknown[0]!r} is not known{nearest(unknown[0], known)}; known: {', '.join(known)}"
            )


def _fit_to_rows(configuration: dict[str, Any], stated: Mapping[str, Any], task: tasks.Task, rows: int) -> dict[str, Any]:
    """Return the configuration with the epochs and evaluations that `rows` need, without fields that the task refuses."""
    refused = {name for name in task.unsupported_settings if name not in stated}
    fitted = {name: value for name, value in configuration.items() if name not in refused}
    if fitted["method"] == PROBE:
        return {name: value for name, value in fitted.items() if name == "method" or name.startswith(OPTION)}
    batch = int(fitted.get("batch_size", TrainParams().batch_size)) * int(fitted.get("accumulation", 1))
    epochs = float(fitted.get("epochs", TrainParams().epochs))
    if "epochs" not in stated:
        fitted["epochs"] = min(MOST_EPOCHS, max(epochs, float(math.ceil(FEWEST_STEPS / max(1, math.ceil(rows / batch))))))
    return fitted


def rhythm(settings: Mapping[str, Any], stated: set[str]) -> dict[str, Value]:
    """Return how often a training of `settings` is evaluated, and its patience, unless params.yaml states them."""
    values = {"evaluations_per_epoch": max(1, math.ceil(_EVALUATIONS / float(settings["epochs"]))), "patience": _PATIENCE}
    return {name: value for name, value in values.items() if name not in stated}


def _space(queue: Sequence[Configuration], defaults: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Dimension]:
    """Return a dimension for each field that varies in the queue and is not `stated`, a little wider than the queue for numbers."""
    space: dict[str, Dimension] = {}
    for name in sorted({name for configuration in queue for name in configuration if name not in stated}):
        values = [configuration.get(name, defaults.get(name)) for configuration in queue]
        distinct = list(dict.fromkeys(values))
        when = {"method": _CONDITIONS[name]} if name in _CONDITIONS else {}
        if name in ("learning_rate", "epochs"):
            low, high = min(map(float, values)), max(map(float, values))
            high = min(MOST_EPOCHS, high * _WIDER) if name == "epochs" else min(1.0, high * _WIDER)
            low = min(1.0, low / 2) if name == "epochs" else low / _WIDER
            space[name] = Dimension(type="float", low=low, high=high, log=True, when=when)
        elif len(distinct) > 1:
            space[name] = Dimension(type="categorical", choices=tuple(distinct), when=when)
    if "method" not in space and any(dimension.when for dimension in space.values()):
        space = {name: dimension.model_copy(update={"when": {}}) for name, dimension in space.items()}
    return space


def describe(configuration: Configuration, bases: int) -> str:
    """Return a short name of a configuration; the base is named if there are several."""
    parts = [str(configuration["method"])]
    if bases > 1:
        parts.append(str(configuration["base"]))
    for name, text in (("pooling", "{} pooling"), ("class_weights", "{} classes")):
        value = configuration.get(OPTION + name)
        if value not in (None, "none", "default") and isinstance(value, str):
            parts.append(text.format(value))
    if configuration["method"] == PROBE:
        return ", ".join(parts)
    if configuration.get("head_start") == PROBE:
        parts.append("probe start")
    if configuration.get("contrastive_start"):
        parts.append(f"contrastive start {configuration['contrastive_start']:g}")
    numbers = (
        ("learning_rate", "rate {:.2g}"),
        ("epochs", "{:.3g} epochs"),
        ("batch_size", "batch {}"),
    )
    shown = [text.format(configuration[name]) for name, text in numbers if name in configuration]
    named = {"method", "base", "head_start", "contrastive_start", *(name for name, _ in numbers)}
    plain = TrainParams()
    others = {name: value for name, value in configuration.items() if name not in named and not name.startswith(OPTION)}
    shown += [f"{name.replace('_', ' ')} {value}" for name, value in others.items() if value != getattr(plain, name)]
    return ", ".join([*parts, *shown])
