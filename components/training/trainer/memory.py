"""Repeats a training that runs out of memory with smaller batches and the same gradient."""

import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from components.core.errors import RetuneError, first_line
from components.model.tasks import Task
from components.training.trainer.data import PreparedSplits
from components.training.trainer.fit import CheckpointPaths, TrainResult, fit
from components.training.trainer.settings import TrainParams

log = logging.getLogger(__name__)

_CPU = "DefaultCPUAllocator"  # torch raises a plain RuntimeError on the CPU; this is the start of its message


def fit_within_memory(
    task: Task,
    base: Path,
    learn: PreparedSplits,
    settings: TrainParams,
    *,
    keep: Callable[[TrainParams], CheckpointPaths] | None = None,
    **rest: Any,
) -> tuple[TrainResult, TrainParams]:
    """Call `fit`; while memory runs out, divide the batch and multiply the accumulation by the same number, 2 if possible.

    A step then has the same rows and the same gradient, except for rounding. `keep` gets the settings, since checkpoints belong to one
    batch size; `rest` is passed to `fit`. Return the result and the settings that fitted into memory.

    Raises:
        RetuneError: memory runs out and the batch cannot be divided, or an error of `fit`.
    """
    while True:
        try:
            return fit(task, base, learn, settings, keep=keep(settings) if keep else None, **rest), settings
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if not out_of_memory(error):
                raise
            smaller, reason = divided(settings), first_line(error)
            if smaller is None or task.compares_rows or settings.contrastive_start:
                raise RetuneError(_too_large(settings, reason)) from error
        # Outside the handler, whose exception refers to the model.
        gc.collect()
        torch.cuda.empty_cache()
        log.warning(
            "out of memory with batch_size %d: %s; training again with batch_size %d and accumulation %d, which has the same gradient",
            *(settings.batch_size, reason, smaller.batch_size, smaller.accumulation),
        )
        settings = smaller


def out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory ran out, on a GPU or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _CPU in str(error)


def divided(settings: TrainParams) -> TrainParams | None:
    """Return the settings with the batch divided by its smallest factor, and the accumulation multiplied by it; None for a batch of 1."""
    size = settings.batch_size
    factor = next((number for number in range(2, size + 1) if size % number == 0), None)
    if factor is None:
        return None
    return settings.model_copy(update={"batch_size": size // factor, "accumulation": settings.accumulation * factor})


def _too_large(settings: TrainParams, reason: str) -> str:
    if settings.batch_size > 1:
        return (
            f"out of memory with train.batch_size {settings.batch_size}: {reason}. The training compares the rows of a batch, so that "
            "smaller batches would change it; lower train.batch_size"
        )
    return f"out of memory with train.batch_size 1: {reason}. Lower preprocess.max_length, or choose a smaller base.model or method lora"
