"""One training with transformers' Trainer: `tune` runs it for each trial, `train` for the final model."""

import logging
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback, TrainingArguments
from transformers.trainer_utils import enable_full_determinism, set_seed

from components.core.errors import BadModel
from components.core.temporary import temporary
from components.model import methods
from components.model.methods import lora
from components.model.support.feature_cache import FeatureCache
from components.model.tasks import Task
from components.training.trainer import checkpoints, hardware
from components.training.trainer.arguments import arguments_of
from components.training.trainer.callbacks import EvalObserver, NaNGuard, Progress, Records, TimeLimit, Watch
from components.training.trainer.contrastive_warmup import ContrastiveStart
from components.training.trainer.data import PreparedSplits
from components.training.trainer.head_start import probe_head
from components.training.trainer.outputs import ValidationOutputs, compute_metrics
from components.training.trainer.settings import TrainParams, check_fields, check_metric
from components.training.trainer.trainer import FineTuner

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """A trained model with statistics; `seconds` counts all processes, `resumed` is the step that this process started at.

    `outputs` are those of the evaluation with the value `best_value`. `adapter_weights` are set if the settings store the adapter instead
    of the merged model.
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
    outputs: ValidationOutputs
    adapter_weights: lora.AdapterWeights | None = None


@dataclass(frozen=True)
class CheckpointPaths:
    """The checkpoint folder and the history file of a training.

    A training that is not `resumable` keeps only its best weights. Once it has ended, a later call with the same folder loads them, as
    it does for a resumable training; before that, a later call starts again.
    """

    checkpoints: Path
    history: Path
    resumable: bool = True


def fit(
    task: Task,
    base: Path,
    learn: PreparedSplits,
    settings: TrainParams,
    *,
    keep: CheckpointPaths | None = None,
    evaluations: int | None = None,
    watch: Watch | None = None,
    cache: FeatureCache | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainResult:
    """Fine-tune `base` on `learn` and return the model; the same arguments and thread count give the same weights, bit by bit.

    With `keep`, training resumes from the newest valid checkpoint, stops early by `patience`, and returns the best checkpoint; a training
    that has ended is only loaded. Without it nothing is stored and the last weights are returned. `evaluations` spreads that many over the
    training instead of `settings.evaluations_per_epoch`; `watch` gets the number of each, from 1, and its metric; `cache` as in
    `probe_head`; `callbacks` are added to Trainer's.

    Raises:
        BadParams: the metric is unknown, or the hardware does not support the precision.
        RetuneError: the loss is NaN or infinite.
    """
    check_metric("train.metric", settings.metric, task.validation_metrics)
    check_fields(settings, task.unsupported_settings)
    threads = hardware.set_threads(settings.threads)
    with ExitStack() as stack:
        folder = keep.checkpoints if keep else stack.enter_context(temporary())
        checkpoint = checkpoints.newest(folder) if keep else None
        patience = EarlyStoppingCallback(settings.patience) if keep and settings.patience else None
        clock = TimeLimit(settings.max_minutes, checkpoint[1].seconds if checkpoint else 0.0, settings.stop_after_steps, patience)
        observer = EvalObserver(settings.metric, watch)
        every = _evaluate_every(settings, len(learn.train), evaluations)
        start = _contrastive_start(task, settings, len(learn.train), every)
        strategy = "no" if keep is None else "steps" if keep.resumable else "best"
        arguments = arguments_of(folder, settings, every, strategy, task.evaluation_batch, start.epochs if start else 0.0)
        own = _callbacks(clock, observer, keep, start, patience)
        trainer = _trainer(task, base, learn, settings, arguments, [*own, *callbacks], start, cache)
        trainer.compute_metrics = compute_metrics(task, learn.spec, observer.receive)
        if keep:
            _start_history(checkpoint, keep.history)
        speed = _run(trainer, checkpoint, settings.method)
        if not keep:
            trainer.use_average()
        state: Any = trainer.state
        stopped_by = (checkpoint[1].stopped_by if checkpoint else "") or clock.ending(state, trainer.control) or _end(settings.method)
        if keep and methods.trains(settings.method) and not keep.resumable and not (checkpoint and checkpoint[1].stopped_by):
            checkpoints.seal_best(state, keep.history, clock.seconds(), stopped_by, speed)
        return _result(
            trainer,
            settings,
            keep=keep is not None,
            best=(state.best_global_step, state.best_metric) if keep else (observer.best_step, observer.best_value),
            stopped_by=stopped_by,
            resumed=checkpoint[1].step if checkpoint else 0,
            seconds=round(clock.seconds(), 2),
            examples_per_second=round(speed, 1),
            threads=threads,
            outputs=_best_outputs(observer, folder, state),
        )


def _result(trainer: FineTuner, settings: TrainParams, *, keep: bool, best: tuple[int, float], **measured: Any) -> TrainResult:
    """Return the trained model with its statistics; `best` is the step and the value of the best evaluation."""
    # On the CPU, because the adapter is merged there when the version is loaded.
    adapter_weights = lora.learned_weights(trainer.module.cpu()) if keep and settings.stores_adapter else None
    model = methods.load(settings.method).finish(trainer.model)
    return TrainResult(
        model=model,
        steps=trainer.state.global_step,
        epochs=round(trainer.state.epoch or 0.0, 4),
        best_step=best[0],
        best_value=best[1],
        device=hardware.device(),
        precision=hardware.precision(settings),
        parameters=sum(weights.numel() for weights in model.parameters()),
        adapter_weights=adapter_weights,
        **measured,
    )


def _best_outputs(observer: EvalObserver, folder: Path, state: Any) -> ValidationOutputs:
    """Return the outputs of the best evaluation, which an earlier process may have stored in a checkpoint of `folder`."""
    if state.best_model_checkpoint:
        return ValidationOutputs.read(folder / Path(state.best_model_checkpoint).name)
    return cast(ValidationOutputs, observer.best_outputs or observer.outputs)  # training always ends with an evaluation


def _end(method: str) -> str:
    """Return why a training ends if nothing stops it."""
    return "epochs" if methods.trains(method) else "no training"


def _start_history(checkpoint: tuple[Path, checkpoints.CheckpointManifest] | None, history: Path) -> None:
    """Restore the history of the checkpoint, because the output folder was emptied since; without a checkpoint start an empty one."""
    history.parent.mkdir(parents=True, exist_ok=True)
    history.write_bytes(b"")
    if checkpoint:
        folder, manifest = checkpoint
        if (stored := folder / checkpoints.HISTORY).exists():
            history.write_bytes(stored.read_bytes())
        start_of = "using the finished training in" if manifest.stopped_by else "resuming from"
        log.info("%s %s, %.0f s trained so far", start_of, folder, manifest.seconds)


def _trainer(
    task: Task,
    base: Path,
    learn: PreparedSplits,
    settings: TrainParams,
    arguments: TrainingArguments,
    callbacks: list[TrainerCallback],
    start: ContrastiveStart | None,
    cache: FeatureCache | None = None,
) -> FineTuner:
    """Build the model from the arguments' seed, and all that trains it."""
    hardware.keep_freed_memory()
    (enable_full_determinism if arguments.full_determinism else set_seed)(arguments.seed)
    model = task.build_model(base, learn.spec)
    if settings.starts_at_probe:
        probe_head(model, task, base, learn, settings, cache).apply(model)
    if settings.dropout is not None:
        set_dropout(model, settings.dropout)
    if settings.accumulation > 1 and (task.compares_rows or start):
        text = "train.accumulation %d: rows are compared within a forward pass of %d, not within a step"
        log.warning(text, settings.accumulation, settings.batch_size)
    trainer = FineTuner(
        settings,
        task.loss(learn.spec, settings.label_smoothing),
        start,
        task.items(learn.spec),
        model=methods.load(settings.method).prepare(model, settings.method_settings()),
        args=arguments,
        data_collator=task.collator(task.load_tokenizer(base), learn.spec),
        train_dataset=learn.train,
        eval_dataset=learn.validation,
        preprocess_logits_for_metrics=task.condense,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    _log_size(settings.method, trainer)
    return trainer


def set_dropout(model: Any, share: float) -> None:
    """Set every dropout of `model` to `share`, also in its config, which is saved with it.

    The names differ between architectures, but all contain `dropout`; the value is in a Dropout module, or in a float of an attention.

    Raises:
        BadModel: the model has no dropout.
    """
    count = 0
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p, count = share, count + 1
        for name, value in vars(part).items():
            if "dropout" in name and isinstance(value, float):
                setattr(part, name, share)
                count += 1
    if not count:
        raise BadModel(f"{type(model).__name__} has no dropout to set; set train.dropout to null")
    for name, value in vars(model.config).items():
        if "dropout" in name and (isinstance(value, float) or (name == "classifier_dropout" and value is None)):
            setattr(model.config, name, share)


def _log_size(method: str, trainer: FineTuner) -> None:
    sizes = [(weights.numel(), weights.requires_grad) for weights in trainer.module.parameters()]
    learning, total = sum(size for size, learns in sizes if learns), sum(size for size, _ in sizes)
    log.info("method %s: %s of %s weights learn (%.1f %%)", method, f"{learning:,}", f"{total:,}", 100 * learning / total)


def _run(trainer: FineTuner, checkpoint: tuple[Path, checkpoints.CheckpointManifest] | None, method: str) -> float:
    """Train or resume, or only load the best checkpoint of a training that has ended; return the examples per second.

    A `method` that does not train is only evaluated.
    """
    if not methods.trains(method):
        measured = trainer.evaluate()
        trainer.state.best_global_step, trainer.state.best_metric = 0, measured[f"eval_{trainer.args.metric_for_best_model}"]
        return 0.0
    if checkpoint and checkpoint[1].stopped_by:
        trainer.state = checkpoints.state_of(checkpoint[0])
        trainer.load_best(checkpoints.best(checkpoint[0]))
        return checkpoint[1].examples_per_second
    outcome = trainer.train(resume_from_checkpoint=str(checkpoint[0]) if checkpoint else None)
    return float(outcome.metrics.get("train_samples_per_second", 0.0))


def _evaluate_every(settings: TrainParams, rows: int, evaluations: int | None) -> int:
    """Return the number of steps between two evaluations; training always ends with one."""
    epoch = _steps_per_epoch(settings, rows)
    if evaluations is None:
        return math.ceil(epoch / settings.evaluations_per_epoch)
    return max(1, math.ceil(math.ceil(settings.epochs * epoch) / evaluations))


def _steps_per_epoch(settings: TrainParams, rows: int) -> int:
    return math.ceil(math.ceil(rows / settings.batch_size) / settings.accumulation)


def _contrastive_start(task: Task, settings: TrainParams, rows: int, every: int) -> ContrastiveStart | None:
    if not settings.contrastive_start:
        return None
    epoch = _steps_per_epoch(settings, rows)
    steps = math.ceil(settings.contrastive_start * epoch)
    log.info("contrastive start: only the encoder learns in the first %d steps", steps)
    return ContrastiveStart(steps, every, epoch, task.vectors)


def _callbacks(
    clock: TimeLimit,
    observer: EvalObserver,
    keep: CheckpointPaths | None,
    start: ContrastiveStart | None,
    patience: EarlyStoppingCallback | None,
) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = [NaNGuard(), clock, observer]
    if start is not None:
        callbacks.append(start)  # after the clock, whose stop signal it reads
    if keep:
        callbacks.append(Records(keep.history, clock, observer, keep.resumable))
        callbacks += [patience] if patience else []
        callbacks += [] if sys.stderr.isatty() else [Progress()]
    return callbacks
