"""The arguments of transformers' Trainer for the settings of a training."""

import math
import sys
from pathlib import Path

from transformers import TrainingArguments

from components.training.trainer import hardware
from components.training.trainer.settings import TrainParams

_LOGS = 50  # points of the loss curve
_SCHEDULES = {"constant": "constant_with_warmup", "plateau": "constant_with_warmup"}  # FineTuner implements the plateau


def arguments_of(
    folder: Path, settings: TrainParams, every: int, strategy: str, evaluation_batch: int, before: float = 0.0
) -> TrainingArguments:
    """Return the arguments of a training in `folder` with an evaluation after `every` steps, and `before` epochs before the first.

    `strategy` decides what is stored: `steps` a checkpoint per evaluation, `best` the best weights, `no` nothing.
    """
    cuda = hardware.device() == "cuda"
    return TrainingArguments(
        output_dir=str(folder),
        # Trainer rounds the steps up, and the sum may be slightly too large.
        num_train_epochs=before + settings.epochs - (1e-9 if before else 0),
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=max(settings.batch_size, evaluation_batch),
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=_SCHEDULES.get(settings.schedule, settings.schedule),
        lr_scheduler_kwargs={"power": settings.schedule_power, "lr_end": 0.0} if settings.schedule == "polynomial" else None,
        warmup_steps=settings.warmup,
        optim="adamw_torch_fused",  # on a CPU, a step of the unfused one costs more than the model's own arithmetic
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        label_smoothing_factor=settings.label_smoothing,
        neftune_noise_alpha=settings.neftune or None,
        bf16=hardware.precision(settings) == "bfloat16",
        use_cpu=not cuda,
        full_determinism=cuda,
        seed=settings.seed,
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy=strategy,
        save_steps=every,
        save_total_limit=2 if strategy == "steps" else 1,  # the best and the newest, or the best
        save_only_model=strategy == "best",
        load_best_model_at_end=strategy != "no",
        metric_for_best_model=settings.metric,
        greater_is_better=True,
        restore_callback_states_from_checkpoint=True,  # keeps the patience counter after a resume
        logging_steps=max(1, every // max(1, _LOGS // max(1, math.ceil(settings.epochs)))),
        logging_first_step=True,
        logging_nan_inf_filter=False,
        disable_tqdm=not sys.stderr.isatty(),
        log_level="error",
        report_to="none",
    )
