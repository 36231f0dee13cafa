"""What a kind of label asks of the task: one file a kind, of the same name."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from components.artifacts.predictions import PROBABILITY, ModelOutput, Predictions
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.model.support.metrics import Metric
from components.model.tasks.text_classification.baselines import Features
from components.model.tasks.text_classification.options import Options

Floats = npt.NDArray[np.float64]
Loss = Callable[[Any, Any], Any]
"""Of a batch's logits and labels, both tensors; returns a scalar tensor, the mean over the batch."""


def scored(predicted: Sequence[str], scores: Floats, labels: Sequence[str]) -> ModelOutput:
    """Return answers with the probabilities `scores` (rows, labels) beside them."""
    return ModelOutput.texts(predicted, {f"{PROBABILITY}{label}": scores[:, place] for place, label in enumerate(labels)})


class Kind(Protocol):
    """What the class `Kind` of a kind's file offers, made with the task's options; `scores` are what answers are made of, (rows, m)."""

    classes: bool
    one_answer: bool
    scored: bool
    ordered: bool
    """Whether what an output means depends on the outputs before it."""
    validation_metrics: tuple[str, ...]
    test_metrics: Mapping[str, Metric]
    baselines: tuple[str, ...]
    unsupported_settings: Mapping[str, str]

    def rename_labels(self, cell: str, rename: Callable[[str], str]) -> str:
        """Return a cell, or an answer, with `rename` of each label's name; one that cannot be read as it is."""

    def label_of(self, cell: str) -> str:
        """Return the label that stands in a cell, in the form of an answer; ValueError says what is wrong with it."""

    def labels_of(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the label map of the labels of some rows."""

    def label_counts(self, labels: Sequence[str]) -> Mapping[str, int]:
        """Return how many rows hold each label."""

    def fit_options(self, labels: Sequence[str]) -> Mapping[str, Any]:
        """Return the options that follow from the labels of the training rows."""

    def targets(self, labels: Sequence[str], spec: ModelSpec) -> pa.Array:
        """Return what the model is to learn, for the encoded column `labels`; BadData for a label outside the map."""

    def outputs(self, spec: ModelSpec) -> Mapping[str, Any]:
        """Return the settings of the model's config: id2label, label2id and problem_type."""

    def loss(self, spec: ModelSpec, smoothing: float) -> Loss | None:
        """Return the loss, or None for the model's own."""

    def scores(self, logits: Any, spec: ModelSpec) -> Any:
        """Return the scores that logits, a tensor of float64 (rows, outputs), stand for."""

    def answers(self, scores: Floats, spec: ModelSpec) -> ModelOutput:
        """Return what is answered at these scores."""

    def calibrate(self, scores: Floats, labels: Sequence[str], spec: ModelSpec) -> Mapping[str, Any]:
        """Return the options that follow from the scores of the validation rows."""

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Return the `validation_metrics` of logits (rows, outputs) and targets."""

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return what `test_metrics` sums up."""

    def predict_baselines(self, train: pd.DataFrame, spec: ModelSpec, rows: int, features: Features | None) -> Mapping[str, ModelOutput]:
        """Return what each of `baselines` answers to `rows` test rows; `features` is None where the training texts have no words."""

    def slices(self, labels: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return parts of the test set by their label."""

    def tables(self, rows: pd.DataFrame, found: Predictions) -> tuple[ReportTable, ...]:
        """Return what is worth reading on the page."""


def kind_of(options: Options) -> Kind:
    """Return the kind that the options name."""
    return cast(Kind, import_module(f"components.model.tasks.text_classification.{options.kind}").Kind(options))
