"""Contrastive start: in the first steps the encoder learns to group texts with the same label; then the task is trained as usual.

The idea is SetFit's: Tunstall et al., "Efficient Few-Shot Learning Without Prompts" (2022). The loss is Khosla et al.'s, which uses all
pairs of a batch instead of sampled pairs. The step number alone decides which loss a step uses, so a resume needs no state.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.core.errors import BadParams, RetuneError

TEMPERATURE = 0.1
"""The value of Khosla et al. (2020), section 4."""

Vectors = Callable[[Any, Mapping[str, Any]], Any]
"""Takes a model and a batch without labels; returns one vector per row."""


def supervised_contrastive_loss(vectors: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the supervised contrastive loss of `vectors` (rows, width), of any length, with `labels` (rows,).

    -1/|P| Σ log(exp(z·p/t) / Σ exp(z·a/t)), the mean over rows z: p runs over P, the other rows with its label, and a over all other
    rows. Khosla et al., "Supervised Contrastive Learning" (2020), equation 2. Rows without another row of their label serve only as
    negatives; a batch of such rows has a loss of 0.
    """
    units = torch.nn.functional.normalize(vectors.float(), dim=-1)
    itself = torch.eye(len(units), dtype=torch.bool, device=units.device)
    same = (labels[:, None] == labels) & ~itself
    anchors = same.any(dim=1)
    if not anchors.any():
        return units.sum() * 0
    similar = (units @ units.T / temperature).masked_fill(itself, -torch.inf)
    chances = similar - similar.logsumexp(dim=1, keepdim=True)
    means = chances.masked_fill(~same, 0).sum(dim=1)[anchors] / same.sum(dim=1)[anchors]
    return -means.mean()


def pair_by_label(labels: Sequence[int], generator: torch.Generator) -> list[int]:
    """Return a random order of the indices of `labels` in which nearly every row is next to a row with the same label.

    The rows of a label are shuffled and split into pairs, the last of which takes an odd row; then the pairs are shuffled.
    """
    numbers = torch.tensor(labels)
    parts: list[list[int]] = []
    for label in numbers.unique().tolist():
        own = (numbers == label).nonzero().flatten()
        shuffled = own[torch.randperm(len(own), generator=generator)].tolist()
        ends = [*range(2, len(shuffled) - 1, 2), len(shuffled)]
        parts += [shuffled[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    return [row for part in torch.randperm(len(parts), generator=generator).tolist() for row in parts[part]]


class ContrastiveStart(TrainerCallback):
    """The first `steps` of a training, with a separate loss and without evaluations, because the head is still random."""

    def __init__(self, steps: int, every: int, epoch: int, vectors: Vectors) -> None:
        """Last for `steps`, with `epoch` steps per epoch; then evaluate every `every` steps. `vectors` is the task's function."""
        self.steps, self.epochs = steps, steps / epoch
        self._every, self._vectors = every, vectors

    def loss(self, model: Any, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Return the loss of a batch.

        Raises:
            BadParams: no weight below the head learns.
        """
        vectors = self._vectors(model, {name: value for name, value in inputs.items() if name != "labels"})
        if not vectors.requires_grad:
            raise BadParams("params.yaml: train.contrastive_start has no effect: train.frozen_layers freezes all layers")
        return supervised_contrastive_loss(vectors, inputs["labels"], TEMPERATURE)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Suppress evaluations during the start, whose checkpoints stay, and count them from its end."""
        if state.global_step <= self.steps:
            if control.should_training_stop:
                raise RetuneError(
                    f"training was stopped in step {state.global_step} of the {self.steps} of train.contrastive_start, before the head "
                    "learned anything; raise train.max_minutes or train.stop_after_steps, or lower train.contrastive_start"
                )
            control.should_evaluate = False
        elif not control.should_training_stop:
            control.should_evaluate = (state.global_step - self.steps) % self._every == 0
            control.should_save = control.should_evaluate and args.save_strategy != "no"
