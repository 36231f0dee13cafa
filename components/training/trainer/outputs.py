"""The outputs of a model for the validation rows, as `Task.validate` gets them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from transformers import EvalPrediction

from components.artifacts.training import ModelSpec
from components.model.tasks import Task

FILE = "outputs.npz"


@dataclass(frozen=True)
class ValidationOutputs:
    """The condensed `outputs` and the `labels` of the encoded validation rows, in their order: the arguments of `Task.validate`."""

    outputs: npt.NDArray[Any]
    labels: npt.NDArray[Any]

    def write(self, folder: Path) -> None:
        """Write the arrays into `folder`."""
        np.savez(folder / FILE, outputs=self.outputs, labels=self.labels)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the arrays from `folder`."""
        with np.load(folder / FILE) as arrays:
            return cls(arrays["outputs"], arrays["labels"])


def compute_metrics(task: Task, spec: ModelSpec, receive: Callable[[ValidationOutputs], None]) -> Any:
    """Return the function that computes the metrics of an evaluation for Trainer, and passes its outputs to `receive`."""

    def compute(answers: EvalPrediction) -> Mapping[str, float]:
        labels: Any = answers.label_ids  # several tensors, such as starts and ends of answers, become columns
        labels = np.stack(labels, axis=-1) if isinstance(labels, tuple) else np.asarray(labels)
        found = ValidationOutputs(np.asarray(answers.predictions), labels)
        receive(found)
        return task.validate(found.outputs, found.labels, spec)

    return compute
