"""transformers' Trainer with the settings that it lacks, each through a hook of Trainer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler

from components.core.errors import BadParams
from components.model.methods import freeze
from components.training.trainer import losses
from components.training.trainer.callbacks import GradualUnfreezing
from components.training.trainer.contrastive_warmup import ContrastiveStart, pair_by_label
from components.training.trainer.optimizers import WarmPlateau, build_optimizer
from components.training.trainer.settings import TrainParams
from components.training.trainer.weight_averaging import WeightAverage, moving_average, stochastic_average

Loss = Callable[[Any, Any], Any]
"""Takes the logits and labels of a batch."""
Count = Callable[[Any], float]
"""Takes a batch; returns the number of items that its loss is the mean of."""


class FineTuner(Trainer):
    """Trainer with the optimizers, schedules, penalties and weight averages of `train`.

    The order of the rows depends on seed and epoch only, so a resume within an epoch sees the same batches. A step of several passes has
    the gradient of one pass over all its rows: each pass is weighted by the number of items that its loss is the mean of, e.g. tokens.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        settings: TrainParams,
        loss: Loss | None = None,
        start: ContrastiveStart | None = None,
        items: Count | None = None,
        **rest: Any,
    ) -> None:
        """Train with `settings`; after `start`, `loss`, a mean over `items`, replaces the model's own loss; `rest` is Trainer's.

        Raises:
            BadParams: a penalty has no effect.
        """
        super().__init__(**rest)
        # Trainer assumes that a forward with **kwargs divides its loss by all items of a step. Most classifiers return the mean of a
        # pass, and so do all models here: compute_loss weights the passes.
        self.model_accepts_loss_kwargs = False
        self._counts = (items or losses.count_items, losses.count_items)
        self._totals = (0.0, 0.0)
        self._settings, self._loss, self._start = settings, loss, start
        model = self.module
        self._decayed = set(self.get_decay_parameter_names(model))
        self._origin: dict[str, torch.Tensor] = {}
        if settings.l2_sp:
            learning = losses.trainable(model, losses.pretrained_names(model))
            self._origin = {name: weights.detach().clone() for name, weights in learning.items()}
            if not self._origin:
                raise BadParams("params.yaml: train.l2_sp has no effect: train.frozen_layers freezes all layers of the base model")
        share = stochastic_average(settings.swa) if settings.swa else moving_average(settings.ema) if settings.ema else None
        self._average = WeightAverage(model, share) if share else None
        if self._average:
            self.add_callback(self._average)
        own = settings.method_settings()
        if isinstance(own, freeze.Params) and own.unfreeze_every:
            self.add_callback(GradualUnfreezing(model, own.frozen_layers, own.unfreeze_every))

    @property
    def module(self) -> torch.nn.Module:
        """The trained model, or its wrapper."""
        return cast(torch.nn.Module, self.model)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Build the optimizer; AdamW with a single learning rate is Trainer's."""
        if self.optimizer is None and (self._settings.optimizer != "adamw" or self._settings.layer_decay < 1):
            self.optimizer = build_optimizer(self.module if model is None else model, self._decayed, self._settings)
        return super().create_optimizer(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Build the plateau schedule, which has a warm-up here; all others are Trainer's."""
        if self._settings.schedule == "plateau" and self.lr_scheduler is None:
            warmup = self.args.get_warmup_steps(num_training_steps)
            plateau = (self._settings.plateau_factor, self._settings.plateau_patience)
            self.lr_scheduler: Any = WarmPlateau(cast(Any, optimizer or self.optimizer), warmup, *plateau)
        return super().create_scheduler(num_training_steps, optimizer)

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """Return the task's loss and, during training, the penalties."""
        own, plain = self._shares(inputs) if model.training else (1.0, 1.0)
        if model.training and self._start is not None and self.state.global_step < self._start.steps:
            return plain * (self._start.loss(model, inputs) + self._penalties())
        copy, labels = dict(inputs), inputs.get("labels")  # Trainer removes the labels for label smoothing
        loss, outputs = self._task_loss(model, inputs, num_items_in_batch)
        loss = own * loss
        if model.training and self._settings.r_drop:
            second_loss, second = self._task_loss(model, copy, num_items_in_batch)
            divergence = losses.divergence(outputs["logits"], second["logits"], labels)
            loss = (loss + own * second_loss) / 2 + plain * self._settings.r_drop * divergence
        if model.training and (self._settings.l1 or self._settings.l2_sp):
            loss = loss + plain * self._penalties()
        return (loss, outputs) if return_outputs else loss

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        """Return the batches of a step, and count the items that their losses are means of."""
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._totals = (sum(map(self._counts[0], batches)), sum(map(self._counts[1], batches)))
        return batches, items

    def _shares(self, inputs: Any) -> tuple[float, float]:
        """Return the weight of a pass within its step: for the task's own loss, and for a mean over all labels."""
        own, plain = (count(inputs) / total if total else 1.0 for count, total in zip(self._counts, self._totals, strict=True))
        return own, plain

    def _task_loss(self, model: Any, inputs: Any, num_items_in_batch: Any) -> tuple[Any, Any]:
        """Return the task's loss of a batch, with label smoothing if set, and the model's output."""
        if self._loss is None or "labels" not in inputs:
            loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
            return loss, outputs
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        return self._loss(outputs["logits"], inputs["labels"]), outputs

    def evaluate(self, *args: Any, **rest: Any) -> dict[str, float]:
        """Evaluate the averaged weights if an average is kept."""
        if self._average is None:
            return super().evaluate(*args, **rest)
        with self._average.applied():
            return super().evaluate(*args, **rest)

    def load_best(self, folder: Path) -> None:
        """Load the model of the checkpoint in `folder` as the result, not to train it further."""
        super()._load_from_checkpoint(str(folder))

    def use_average(self) -> None:
        """Set the model's weights to the average, if one is kept; call it after training."""
        if self._average is not None:
            self._average.swap()

    def _save(self, output_dir: Any = None, state_dict: Any = None) -> None:
        if self._average is None:
            return super()._save(output_dir, state_dict)
        with self._average.applied():
            super()._save(output_dir, state_dict)
            self._average.save(Path(str(output_dir)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._average is not None:
            self._average.load(Path(resume_from_checkpoint))

    def _penalties(self) -> torch.Tensor:
        penalty = torch.zeros((), device=self.args.device)
        if self._settings.l1:
            penalty = penalty + self._settings.l1 * losses.l1_norm(losses.trainable(self.module, self._decayed))
        now = losses.trainable(self.module, self._origin.keys())
        if now:  # empty without l2_sp, and while everything but the head is frozen
            penalty = penalty + self._settings.l2_sp * losses.half_squared_distance(now, self._origin)
        return penalty

    def get_train_dataloader(self) -> Any:
        """Use random draws that change per epoch if the collator draws, e.g. masks tokens; evaluations keep fixed draws."""
        fixed = self.data_collator
        self.data_collator = getattr(fixed, "drawing", fixed)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = fixed

    def _get_train_sampler(self, train_dataset: Any = None) -> "EpochSampler":
        rows: Any = train_dataset if train_dataset is not None else self.train_dataset
        set_draw = getattr(self.data_collator, "set_draw", None)
        sampler = EpochSampler(self.args.train_batch_size * self.args.gradient_accumulation_steps, rows.lengths, self.args.seed, set_draw)
        if self._start is not None:
            sampler.pair(rows.table.column("labels").to_pylist(), self._start.epochs)
        return sampler


class EpochSampler(LengthGroupedSampler):
    """Length-grouped order with its own generator, reseeded each epoch; optionally pairs of one label in the first epochs."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int, set_draw: Callable[[int], None] | None = None) -> None:
        """Group `lengths` into batches of about equal length; `set_draw` is called with the seed of each epoch."""
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self._seed, self._set_draw = seed, set_draw
        self._labels, self._pairing = list[int](), 0.0
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Seed the order of `epoch`; accelerate calls this before each epoch."""
        self._epoch = epoch
        seed = self._seed + 1_000_003 * epoch
        self.generator.manual_seed(seed)
        if self._set_draw is not None:
            self._set_draw(seed)

    def pair(self, labels: list[int], epochs: float) -> None:
        """Order the rows by `pair_by_label` of their `labels` in epochs that start within the first `epochs`."""
        self._labels, self._pairing = labels, epochs

    def __iter__(self) -> Iterator[int]:
        return iter(pair_by_label(self._labels, self.generator)) if self._epoch < self._pairing else super().__iter__()
