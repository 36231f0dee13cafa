"""One training around transformers' Trainer: the loop that `tune` runs for a trial and `train` for the model to keep."""

import logging
import math
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import EarlyStoppingCallback, EvalPrediction, PrinterCallback, TrainerCallback, TrainingArguments, set_seed

from components.artifacts.training import ModelSpec
from components.core.temporary import temporary
from components.model import methods
from components.model.methods import lora
from components.model.tasks import Task
from components.training.trainer import checkpoints, hardware
from components.training.trainer.callbacks import CheckpointSealer, EvalObserver, History, NaNGuard, Progress, TimeLimit, Watch
from components.training.trainer.contrastive_warmup import ContrastiveStart
from components.training.trainer.data import PreparedSplits
from components.training.trainer.dropout import set_dropout
from components.training.trainer.optimizers import Plateau
from components.training.trainer.settings import TrainParams, check_fields, check_metric
from components.training.trainer.trainer import FineTuner

log = logging.getLogger(__name__)

_LOGS = 50  # points of the loss curve
_SCHEDULES = {"constant": "constant_with_warmup", "plateau": "constant_with_warmup"}  # the plateau itself is FineTuner's


@dataclass(frozen=True)
class TrainResult:
    """A trained model and how it came about; `seconds` are those of all processes, `resumed` is the step that this one began at.

    `learnt` is what was learnt apart from the base, where the settings want it registered so.
    """

    model: Any
    steps: int
    epochs: float
    best_step: int
    best_value: float
    stopped_by: str
    resumed: int
    seconds: float
    examples_per_second: float
    threads: int
    device: str
    precision: str
    parameters: int
    learnt: lora.Learnt | None = None


@dataclass(frozen=True)
class CheckpointPaths:
    """Where a training that must survive a kill keeps its checkpoints and appends its history."""

    checkpoints: Path
    history: Path


def fit(
    task: Task,
    base: Path,
    learn: PreparedSplits,
    settings: TrainParams,
    *,
    keep: CheckpointPaths | None = None,
    evaluations: int | None = None,
    watch: Watch | None = None,
) -> TrainResult:
    """Fine-tune `base` on `learn` and return the model; the same arguments and thread count give the same weights, bit by bit.

    With `keep`, training goes on from the newest whole checkpoint, stops early by `patience`, and the best checkpoint is
    returned. Without it nothing is kept: the last weights are returned. `evaluations` spreads that many over the whole
    training instead of `settings.evaluations_per_epoch`; `watch` is told each one's number, from 1, and the metric.

    Raises:
        BadParams: an unknown metric, or a precision that the machine does not have.
        RetuneError: the loss is no longer a number.
    """
    check_metric("train.metric", settings.metric, task.validation_metrics)
    check_fields(settings, task.unsupported_settings)
    threads = hardware.set_threads(settings.threads)
    hardware.keep_freed_memory()
    with ExitStack() as stack:
        folder = keep.checkpoints if keep else stack.enter_context(temporary())
        found = checkpoints.newest(folder) if keep else None
        clock = TimeLimit(settings.max_minutes, found[1].seconds if found else 0.0)
        watcher = EvalObserver(settings.metric, watch)
        every = _evaluate_every(settings, len(learn.train), evaluations)
        start = _contrastive_start(task, settings, len(learn.train), every)
        arguments = _arguments(folder, settings, every, keep is not None, task.evaluation_batch, start.epochs if start else 0.0)
        trainer = _trainer(task, base, learn, settings, arguments, _callbacks(settings, clock, watcher, keep, start), start)
        if found and keep:
            log.info("going on from %s, %.0f s trained so far", found[0], found[1].seconds)
            _restore_history(found[0], keep.history)
        speed = _run(trainer, found)
        if not keep:
            trainer.show_average()
        state: Any = trainer.state
        learnt = lora.learned_weights(trainer.module.cpu()) if keep and settings.adapted else None  # who loads it merges on the CPU, too
        model = methods.load(settings.method).finish(trainer.model)
        return TrainResult(
            model=model,
            steps=state.global_step,
            epochs=round(state.epoch or 0.0, 4),
            best_step=state.best_global_step if keep else watcher.best_step,
            best_value=state.best_metric if keep else watcher.best_value,
            stopped_by=(found[1].stopped_by if found else "") or clock.ending(state, trainer.control) or "epochs",
            resumed=found[1].step if found else 0,
            seconds=round(clock.seconds(), 2),
            examples_per_second=round(speed, 1),
            threads=threads,
            device=hardware.device(),
            precision=hardware.precision(settings),
            parameters=sum(weights.numel() for weights in model.parameters()),
            learnt=learnt,
        )


def _trainer(
    task: Task,
    base: Path,
    learn: PreparedSplits,
    settings: TrainParams,
    arguments: TrainingArguments,
    callbacks: list[TrainerCallback],
    start: ContrastiveStart | None,
) -> FineTuner:
    """Build the model from the arguments' seed, and all that trains it."""
    set_seed(arguments.seed)
    model = task.build_model(base, learn.spec)
    if settings.dropout is not None:
        set_dropout(model, settings.dropout)
    if settings.accumulation > 1 and (task.compares_rows or start):
        log.warning(
            "train.accumulation %d: rows are compared within a pass of %d, not within a step", settings.accumulation, settings.batch_size
        )
    trainer = FineTuner(
        settings,
        task.loss(learn.spec, settings.label_smoothing),
        start,
        task.items(learn.spec),
        model=methods.load(settings.method).prepare(model, **settings.own()),
        args=arguments,
        data_collator=task.collator(task.load_tokenizer(base), learn.spec),
        train_dataset=learn.train,
        eval_dataset=learn.validation,
        compute_metrics=_measure(task, learn.spec),
        preprocess_logits_for_metrics=task.condense,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    _log_size(settings.method, trainer)
    return trainer


def _log_size(method: str, trainer: FineTuner) -> None:
    sizes = [(weights.numel(), weights.requires_grad) for weights in trainer.module.parameters()]
    learning, total = sum(size for size, learns in sizes if learns), sum(size for size, _ in sizes)
    log.info("method %s: %s of %s weights learn (%.1f %%)", method, f"{learning:,}", f"{total:,}", 100 * learning / total)


def _run(trainer: FineTuner, found: tuple[Path, checkpoints.CheckpointManifest] | None) -> float:
    """Train, or go on, or only load what a training that had already ended chose; return the examples a second."""
    if found and found[1].stopped_by:
        trainer.state = checkpoints.state_of(found[0])
        trainer.load_best(checkpoints.best(found[0]))
        return 0.0
    outcome = trainer.train(resume_from_checkpoint=str(found[0]) if found else None)
    return float(outcome.metrics.get("train_samples_per_second", 0.0))


def _arguments(folder: Path, settings: TrainParams, every: int, keep: bool, evaluation_batch: int, before: float) -> TrainingArguments:
    cuda = hardware.device() == "cuda"
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=before + settings.epochs - (1e-9 if before else 0),  # Trainer rounds the steps up, and a quotient may be too large
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=max(settings.batch_size, evaluation_batch),
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=_SCHEDULES.get(settings.schedule, settings.schedule),
        lr_scheduler_kwargs={"power": settings.schedule_power, "lr_end": 0.0} if settings.schedule == "polynomial" else None,
        warmup_steps=settings.warmup,
        optim="adamw_torch_fused",  # on a CPU a step of the plain one costs more than the model's own arithmetic
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
        save_strategy="steps" if keep else "no",
        save_steps=every,
        save_total_limit=2,  # the best and the newest
        load_best_model_at_end=keep,
        metric_for_best_model=settings.metric,
        greater_is_better=True,
        restore_callback_states_from_checkpoint=True,  # patience counts on after a resume
        logging_steps=max(1, every // max(1, _LOGS // max(1, math.ceil(settings.epochs)))),
        logging_first_step=True,
        logging_nan_inf_filter=False,
        disable_tqdm=not sys.stderr.isatty(),
        log_level="error",
        report_to="none",
    )


def _evaluate_every(settings: TrainParams, rows: int, evaluations: int | None) -> int:
    """Return the number of steps between two evaluations; one at the end of training comes in any case."""
    an_epoch = _steps_of(settings, rows)
    if evaluations is None:
        return math.ceil(an_epoch / settings.evaluations_per_epoch)
    return max(1, math.ceil(math.ceil(settings.epochs * an_epoch) / evaluations))


def _steps_of(settings: TrainParams, rows: int) -> int:
    """Return the steps of an epoch."""
    return math.ceil(math.ceil(rows / settings.batch_size) / settings.accumulation)


def _contrastive_start(task: Task, settings: TrainParams, rows: int, every: int) -> ContrastiveStart | None:
    if not settings.contrastive_start:
        return None
    an_epoch = _steps_of(settings, rows)
    steps = math.ceil(settings.contrastive_start * an_epoch)
    log.info("contrastive start: the encoder learns by itself in the first %d steps", steps)
    return ContrastiveStart(steps, every, an_epoch, task.vectors)


def _callbacks(
    settings: TrainParams, clock: TimeLimit, watcher: EvalObserver, keep: CheckpointPaths | None, start: ContrastiveStart | None
) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = [NaNGuard(), clock, watcher]
    if start is not None:
        callbacks.append(start)  # after the clock, whose end it must know
    if settings.schedule == "plateau":
        callbacks.append(Plateau(settings.metric))
    if keep:
        callbacks.append(History(keep.history, clock))
        if settings.patience:
            callbacks.append(EarlyStoppingCallback(settings.patience))
        callbacks.append(CheckpointSealer(clock, keep.history))
        if not sys.stderr.isatty():
            callbacks.append(Progress())
    return callbacks


def _measure(task: Task, spec: ModelSpec) -> Any:
    def measure(answers: EvalPrediction) -> Mapping[str, float]:
        return task.validate(np.asarray(answers.predictions), _labels(answers.label_ids), spec)

    return measure


def _labels(found: Any) -> npt.NDArray[Any]:
    """Return the labels; several tensors of them, as starts and ends of answers, as columns."""
    return np.stack(found, axis=-1) if isinstance(found, tuple) else np.asarray(found)


def _restore_history(checkpoint: Path, history: Path) -> None:
    """Put back the lines that the output folder, emptied since, held when the checkpoint was made."""
    kept = checkpoint / checkpoints.HISTORY
    if kept.exists():
        history.write_bytes(kept.read_bytes())
