"""Estimates the duration of a candidate from tokens per second and method, measured in a few seconds and stored per hardware."""

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from components.artifacts.base import Artifact
from components.core.errors import NotFound, RetuneError
from components.core.hashing import digest_value
from components.model import methods
from components.model.tasks import Task
from components.training.trainer import hardware
from components.training.trainer.data import PreparedSplits
from components.training.trainer.memory import fit_within_memory
from components.training.trainer.settings import TrainParams
from components.training.trainer.state_dir import state_folder

log = logging.getLogger(__name__)

_STEPS, _WARM = 9, 3  # steps of a measurement, and those before it, which are slower
_FORWARD = 0.4  # cost of a token of a linear probe, relative to training
_GUESS = 2_000.0  # tokens per second
_START = 2.0  # seconds to build a model and a Trainer, until a candidate has been measured
_FASTEST = 3.0  # the most that a method can be faster than training all weights
_EVALUATION = 0.35  # cost of a token in an evaluation, relative to training


class MachineSpeed(Artifact):
    """Tokens per second of a training, by method, with one base model on the hardware that measured them."""

    FILE: ClassVar[str] = "speed.json"

    tokens: dict[str, float] = Field(default_factory=dict)
    start: float = _START


class StepClock(TrainerCallback):
    """Measures the steps of a training, without the first ones."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Record the time."""
        self._times.append(time.monotonic())

    def seconds_a_step(self) -> float:
        """Return the median seconds of a step."""
        gaps = np.diff(self._times[min(_WARM, len(self._times) - 2) :]) if len(self._times) > 1 else np.array([1.0])
        return max(float(np.median(gaps)), 1e-4)


class Speed:
    """Estimates the seconds of candidates of one base model; every finished training corrects it."""

    def __init__(self, task: Task, base: Path, digest: str, data: PreparedSplits) -> None:
        """Read the stored speed of the base with the `digest` on this hardware."""
        self._task, self._base, self._data = task, base, data
        longest = 2 ** max(3, (max(data.train.lengths, default=1) - 1).bit_length())
        machine = digest_value([digest, longest, hardware.set_threads(0), hardware.device(), hardware.precision(TrainParams())])
        self._folder = state_folder("speed") / machine[:16]
        try:
            self._known = MachineSpeed.read(self._folder)
        except NotFound:
            self._known = MachineSpeed()

    def seconds(self, settings: TrainParams) -> float:
        """Return the expected seconds of a training with `settings`, evaluations included, or of a linear probe."""
        if not methods.trains(settings.method):
            rows = sum(self._data.train.lengths) + sum(self._data.validation.lengths)
            return self._known.start + _FORWARD * rows / self._tokens("full", settings.model_copy(update={"method": "full"}))
        return self._seconds_at(settings, self._tokens(settings.method, settings))

    def is_known(self, settings: TrainParams) -> bool:
        """Return whether the seconds of `settings` need no measurement."""
        return (settings.method if methods.trains(settings.method) else "full") in self._known.tokens

    def least_seconds(self, settings: TrainParams) -> float:
        """Return the expected seconds, or without a measurement of the method the fewest beside those of training all weights, if known."""
        if self.is_known(settings):
            return self.seconds(settings)
        return self._seconds_at(settings, _FASTEST * self._known.tokens.get("full", math.inf))

    def _seconds_at(self, settings: TrainParams, tokens: float) -> float:
        evaluations = settings.epochs * settings.evaluations_per_epoch
        work = sum(self._data.train.lengths) * (settings.epochs + settings.contrastive_start)
        return self._known.start + (work + _EVALUATION * evaluations * sum(self._data.validation.lengths)) / tokens

    def epochs(self, settings: TrainParams, seconds: float) -> float:
        """Return the epochs that fit into `seconds`; at most those of `settings`, with one decimal, 0 if less than a tenth fits."""
        fixed, whole = self.seconds(settings.model_copy(update={"epochs": 0.0})), self.seconds(settings)
        if whole <= seconds:
            return settings.epochs
        return max(0.0, int(10 * settings.epochs * (seconds - fixed) / (whole - fixed)) / 10)

    def correct(self, settings: TrainParams, seconds: float, share: float = 1.0) -> None:
        """Record that a `share` of a training with `settings` took `seconds`."""
        if not share or settings.method not in self._known.tokens:  # a finished training that was only loaded has no steps
            return
        expected = self.seconds(settings) - self._known.start
        taken = max(0.1, seconds - self._known.start)
        self._keep(settings.method, self._known.tokens[settings.method] * share * expected / taken)

    def _tokens(self, method: str, settings: TrainParams) -> float:
        if method not in self._known.tokens:
            try:
                self._measure(method, settings)
            except RetuneError as error:  # the candidate fails too, with its cause on the leaderboard
                log.warning("the speed of the method %s cannot be measured: %s", method, error)
                return _GUESS
        return self._known.tokens[method]

    def _measure(self, method: str, settings: TrainParams) -> None:
        rows = [row % len(self._data.train) for row in range(_STEPS * settings.batch_size)]
        few = list(range(min(len(self._data.validation), 8)))
        some = PreparedSplits(self._data.spec, self._data.train.take(rows), self._data.validation.take(few))
        quick: Mapping[str, Any] = {
            "epochs": 1,
            "evaluations_per_epoch": 1,
            "head_start": "random",
            "contrastive_start": 0.0,
            "accumulation": 1,
        }
        clock = StepClock()
        fit_within_memory(self._task, self._base, some, settings.model_copy(update=quick), callbacks=[clock])
        tokens = sum(some.train.lengths) / len(some.train) * settings.batch_size / clock.seconds_a_step()
        log.info("this machine trains %.0f tokens a second with the method %s", tokens, method)
        self._keep(method, tokens)

    def _keep(self, method: str, tokens: float) -> None:
        self._known = self._known.model_copy(update={"tokens": {**self._known.tokens, method: round(tokens, 1)}})
        self._folder.mkdir(parents=True, exist_ok=True)
        self._known.write(self._folder)
