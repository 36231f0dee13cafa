"""Averages of the weights of several trainings that start from the same base model.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference time" (2022).
"""

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback

from components.artifacts.tuning_result import TunedSettings
from components.core.errors import BadParams
from components.core.temporary import temporary
from components.model.tasks import Task
from components.training.trainer import hardware
from components.training.trainer.arguments import arguments_of
from components.training.trainer.data import PreparedSplits
from components.training.trainer.outputs import ValidationOutputs, compute_metrics
from components.training.trainer.settings import TrainParams, TrainSection
from components.training.trainer.trainer import FineTuner


def soup_members(train: TrainSection, chosen: TunedSettings) -> tuple[TrainParams, ...]:
    """Return the settings of each member of the weight average that the search chose; one if it chose none.

    Raises:
        BadParams: the members cannot be averaged.
    """
    members = tuple(train.settings({**chosen.settings, **member}) for member in ({}, *chosen.soup))
    if len({member.base for member in members}) > 1:
        raise BadParams("the search chose a weight average of different base models; run `dvc repro tune`")
    if any(member in members[:number] for number, member in enumerate(members)):
        fields = ", ".join(sorted({f"train.{name}" for member in chosen.soup for name in member}))
        raise BadParams(f"params.yaml: members of a weight average differ in {fields}; remove these fields, or run `dvc repro tune`")
    if len(members) > 1 and members[0].stores_adapter:
        raise BadParams("params.yaml: train.lora_store is adapter, but the mean of several models has no adapter; set merged")
    return members


def average_weights(models: Iterable[Any]) -> dict[str, torch.Tensor]:
    """Return the mean of the weights of `models`, computed in float64; tensors without fractions are those of the first model.

    The models are summed in their order, so that equal models give equal bits; a model is not needed after its turn.
    """
    types: dict[str, torch.dtype] = {}
    sums: dict[str, torch.Tensor] = {}
    others: dict[str, torch.Tensor] = {}
    count = 0
    for model in models:
        state = model.state_dict()
        if not count:
            types = {name: tensor.dtype for name, tensor in state.items() if tensor.is_floating_point()}
            others = {name: tensor.clone() for name, tensor in state.items() if name not in types}
            sums = {name: torch.zeros_like(state[name], dtype=torch.float64) for name in types}
        for name, total in sums.items():
            total += state[name]
        count += 1
        del model, state  # before the next model is trained
    return {name: (total / count).to(types[name]) for name, total in sums.items()} | others


def greedy_soup(
    task: Task, models: Sequence[Any], values: Sequence[float], base: Path, learn: PreparedSplits, settings: TrainParams
) -> tuple[tuple[int, ...], float, ValidationOutputs | None]:
    """Return the indices of the models whose mean is best on the validation rows, the value of `settings.metric`, and its outputs.

    Starting with the best model, each next one by its value is added if the mean becomes better: Wortsman et al. (2022), recipe 1, except
    that a mean that is equally good is not taken, since its members must be trained. The outputs are None if one model is best.
    """
    order = sorted(range(len(models)), key=lambda index: (-values[index], index))
    chosen: tuple[int, ...] = (order[0],)
    best, outputs = values[order[0]], None
    mean = copy.deepcopy(models[order[0]])
    for index in order[1:]:
        mean.load_state_dict(average_weights(models[member] for member in (*chosen, index)))
        value, found = evaluate(task, mean, base, learn, settings)
        if value > best:
            chosen, best, outputs = (*chosen, index), value, found
    return chosen, best, outputs


def evaluate(task: Task, model: Any, base: Path, learn: PreparedSplits, settings: TrainParams) -> tuple[float, ValidationOutputs]:
    """Return the value of `settings.metric` and the outputs of a trained `model` for the validation rows, as in a training."""
    hardware.set_threads(settings.threads)
    found: list[ValidationOutputs] = []
    with temporary() as folder:
        trainer = FineTuner(
            TrainParams(),  # no penalties and averages
            task.loss(learn.spec, settings.label_smoothing),
            model=model,
            args=arguments_of(folder, settings, 1, "no", task.evaluation_batch),
            data_collator=task.collator(task.load_tokenizer(base), learn.spec),
            eval_dataset=learn.validation,
            compute_metrics=compute_metrics(task, learn.spec, found.append),
            preprocess_logits_for_metrics=task.condense,
        )
        trainer.remove_callback(PrinterCallback)
        metrics = trainer.evaluate()
    return float(metrics[f"eval_{settings.metric}"]), found[-1]
