"""Callbacks of a training: time limit, history, progress, checkpoints, the observer of evaluations, and gradual unfreezing."""

import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.core.errors import RetuneError
from components.model.methods.freeze import freeze
from components.model.support.layers import depths, head_depth
from components.training.trainer import checkpoints
from components.training.trainer.optimizers import WarmPlateau
from components.training.trainer.outputs import ValidationOutputs

log = logging.getLogger(__name__)

Watch = Callable[[int, float], None]

_LOGGED = ("loss", "learning_rate", "grad_norm")
_LOG_INTERVAL = 10.0  # seconds


class TimeLimit(TrainerCallback):
    """Counts the seconds, including those of earlier processes, and stops training cleanly at a limit of minutes or steps."""

    def __init__(self, max_minutes: float, spent: float, steps: int | None = None, patience: EarlyStoppingCallback | None = None) -> None:
        """Allow `max_minutes` in total, of which `spent` seconds are used up, and `steps`; `patience` may stop training earlier."""
        self._limit, self._steps, self._patience = max_minutes * 60, steps, patience
        self._started = time.monotonic() - spent
        self._reached = ""

    def seconds(self) -> float:
        """Return the seconds trained so far."""
        return time.monotonic() - self._started

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Evaluate, save and stop at a limit, as at the end of training."""
        self._reached = "max_minutes" if self.seconds() >= self._limit else "stop_after_steps" if state.global_step == self._steps else ""
        if self._reached and state.global_step < state.max_steps:
            control.should_training_stop = control.should_evaluate = True
            control.should_save = args.save_strategy != "no"

    def ending(self, state: TrainerState, control: TrainerControl) -> str:
        """Return why training ends here: `max_minutes`, `stop_after_steps`, `epochs`, `patience`; an empty string if it does not.

        A callback of the caller that ends training, such as the clock of a search, counts as `stop_after_steps`.
        """
        if not control.should_training_stop:
            return ""
        if state.global_step >= state.max_steps:
            return "epochs"
        impatient = self._patience and self._patience.early_stopping_patience_counter >= self._patience.early_stopping_patience
        return self._reached or ("patience" if impatient else "stop_after_steps")


class Records(TrainerCallback):
    """Appends a JSON line to the history for each log and each evaluation, and adds the outputs of the evaluation to each checkpoint.

    If training can be resumed, each checkpoint also gets the history and a manifest, which makes it valid.
    """

    def __init__(self, path: Path, clock: TimeLimit, observer: "EvalObserver", resumable: bool) -> None:
        self._path, self._clock, self._observer, self._resumable = path, clock, observer, resumable

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any) -> None:
        """Write step, epoch, seconds, and the loss with its learning rate or the metrics of an evaluation."""
        metrics = {name: value for name, value in (logs or {}).items() if _is_metric(name)}
        if metrics:
            point = {"step": state.global_step, "epoch": round(state.epoch or 0.0, 4), "seconds": round(self._clock.seconds(), 2)}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(point | metrics) + "\n")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Complete the checkpoint of this step; its manifest is written last."""
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if self._observer.outputs is not None:
            self._observer.outputs.write(folder)
        if self._resumable:
            checkpoints.seal(folder, self._path, state.global_step, self._clock.seconds(), self._clock.ending(state, control))


class NaNGuard(TrainerCallback):
    """Stops a training whose loss is NaN or infinite."""

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any) -> None:
        """Raise RetuneError with the step and the setting to change."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise RetuneError(
                f"the loss is {loss} after step {state.global_step}: training diverged; "
                f"lower train.learning_rate ({args.learning_rate:g}) or train.max_grad_norm ({args.max_grad_norm:g})"
            )


class Progress(TrainerCallback):
    """Logs plain progress lines, because stage output is a pipe under DVC and Prefect, not a terminal."""

    def __init__(self) -> None:
        self._started, self._last, self._first = 0.0, 0.0, 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Store time and step of the start."""
        self._started = self._last = time.monotonic()
        self._first = state.global_step

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any) -> None:
        """Log step, loss, speed and remaining time at most every ten seconds, and every evaluation."""
        logs, now = logs or {}, time.monotonic()
        if "loss" in logs and now - self._last >= _LOG_INTERVAL:
            self._last = now
            rate = (state.global_step - self._first) / (now - self._started)
            log.info(
                "step %d/%d, epoch %.2f, loss %.3f, %.0f examples/s, %s left",
                *(state.global_step, state.max_steps, state.epoch or 0.0, logs["loss"]),
                *(rate * args.train_batch_size * args.gradient_accumulation_steps, _duration((state.max_steps - state.global_step) / rate)),
            )
        if scores := {name.removeprefix("eval_"): value for name, value in logs.items() if name.startswith("eval_") and _is_metric(name)}:
            listed = ", ".join(f"{name} {value:.4f}" for name, value in sorted(scores.items()))
            log.info("step %d/%d, epoch %.2f, validation: %s", state.global_step, state.max_steps, state.epoch or 0.0, listed)


class EvalObserver(TrainerCallback):
    """Passes each evaluation's metric to the plateau schedule and to a callback, which may raise to stop the training; keeps the best."""

    def __init__(self, metric: str, watch: Watch | None) -> None:
        self._metric, self._watch = f"eval_{metric}", watch
        self.count, self.best_value, self.best_step = 0, -math.inf, 0
        self.outputs: ValidationOutputs | None = None
        self.best_outputs: ValidationOutputs | None = None

    def receive(self, outputs: ValidationOutputs) -> None:
        """Take the outputs of the evaluation whose metrics follow."""
        self.outputs = outputs

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, lr_scheduler: Any = None, **_: Any
    ) -> None:
        """Count the evaluation and report it."""
        value = float(metrics[self._metric])
        if isinstance(lr_scheduler, WarmPlateau):
            lr_scheduler.record(value)
        self.count += 1
        if value > self.best_value:
            self.best_value, self.best_step, self.best_outputs = value, state.global_step, self.outputs
        if self._watch is not None:
            self._watch(self.count, value)


class GradualUnfreezing(TrainerCallback):
    """Unfreezes frozen layers one by one, from the top, the embeddings last: Howard & Ruder (2018), section 3.3.

    The step number alone decides which layers are frozen, so a resume needs no state. The optimizer contains all weights from the start
    and skips those without a gradient, weight decay included.
    """

    def __init__(self, model: Any, frozen_layers: int, every: float) -> None:
        """Start with the first `frozen_layers` layers of `model` frozen (-1: all), and unfreeze one more every `every` epochs."""
        self._model = model
        self._depth = depths(model)
        self._frozen = head_depth(model) - 1 if frozen_layers == -1 else frozen_layers
        self._every = every

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Set the frozen layers of the next step."""
        epochs = state.global_step * args.num_train_epochs / state.max_steps
        freeze(self._model, self._depth, self._frozen - int(epochs / self._every + 1e-9))  # 1e-9: for rounding errors


def _is_metric(name: str) -> bool:
    return name in _LOGGED or (name.startswith("eval_") and not name.endswith(("_runtime", "_per_second", "_time")))


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
