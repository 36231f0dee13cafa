"""Averages of the weights of several trainings that start from the same base model.

Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing inference time" (2022).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

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
        raise BadParams("the search chose an average of weights of different base models; run `dvc repro tune`")
    if any(member in members[:number] for number, member in enumerate(members)):
        fields = ", ".join(sorted({f"train.{name}" for member in chosen.soup for name in member}))
        raise BadParams(f"params.yaml: members of an average of weights differ in {fields}; remove these fields, or run `dvc repro tune`")
    if len(members) > 1 and members[0].stores_adapter:
        raise BadParams("params.yaml: train.lora_store is adapter, but the mean of several models has no adapter; set merged")
    return members


def average_weights(models: Iterable[Any]) -> dict[str, torch.Tensor]:
    """Return the mean of the weights of `models`, computed in float64; tensors without fractions are those of the first model.

    The order of the models is that of the summation, so that equal models give equal bits.
    """
    kinds: dict[str, torch.Tensor] = {}
    sums: dict[str, torch.Tensor] = {}
    count = 0
    for count, model in enumerate(models, start=1):
        state = model.state_dict()
        if count == 1:
            kinds = {name: tensor.detach().clone() for name, tensor in state.items()}
            sums = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in state.items() if tensor.is_floating_point()}
        for name, total in sums.items():
            total += state[name].detach()
    return {name: (sums[name] / count).to(tensor.dtype) if name in sums else tensor for name, tensor in kinds.items()}


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
        metrics = trainer.evaluate()
    return float(metrics[f"eval_{settings.metric}"]), found[-1]
