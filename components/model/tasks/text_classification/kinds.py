"""The protocol of the label kinds; each kind is a module of the same name."""

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
"""Maps logits and labels of a batch to a scalar tensor, the mean over the batch."""


def scored(predicted: Sequence[str], scores: Floats, labels: Sequence[str]) -> ModelOutput:
    """Return predictions with the label probabilities `scores` (rows, labels)."""
    return ModelOutput.texts(predicted, {f"{PROBABILITY}{label}": scores[:, index] for index, label in enumerate(labels)})


class Kind(Protocol):
    """The interface of the class `Kind` in each kind's module; `scores` (rows, m) are the values that answers are made from."""

    classes: bool
    one_answer: bool
    scored: bool
    ordered: bool
    """Whether the meaning of an output depends on the outputs before it."""
    validation_metrics: tuple[str, ...]
    test_metrics: Mapping[str, Metric]
    baselines: tuple[str, ...]
    unsupported_settings: Mapping[str, str]

    def rename_labels(self, cell: str, rename: Callable[[str], str]) -> str:
        """Apply `rename` to each label name in a cell or an answer; return an unreadable cell unchanged."""

    def label_of(self, cell: str) -> str:
        """Return the label of a cell in answer format; raise ValueError with the reason if it is invalid."""

    def labels_of(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the label map for the labels of some rows."""

    def label_counts(self, labels: Sequence[str]) -> Mapping[str, int]:
        """Return the number of rows with each label."""

    def fit_options(self, labels: Sequence[str]) -> Mapping[str, Any]:
        """Compute options from the training labels."""

    def targets(self, labels: Sequence[str], spec: ModelSpec) -> pa.Array:
        """Return the training targets for the encoded column `labels`; raise BadData for an unknown label."""

    def outputs(self, spec: ModelSpec) -> Mapping[str, Any]:
        """Return the config settings of the model: id2label, label2id and problem_type."""

    def loss(self, spec: ModelSpec, smoothing: float) -> Loss | None:
        """Return the loss; None: the loss of the model."""

    def scores(self, logits: Any, spec: ModelSpec) -> Any:
        """Convert logits, a float64 tensor (rows, outputs), to scores."""

    def answers(self, scores: Floats, spec: ModelSpec) -> ModelOutput:
        """Convert scores to predictions."""

    def calibrate(self, scores: Floats, labels: Sequence[str], spec: ModelSpec) -> Mapping[str, Any]:
        """Compute options from the scores of the validation rows."""

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Compute `validation_metrics` from logits (rows, outputs) and targets."""

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return the row statistics of `test_metrics`."""

    def predict_baselines(self, train: pd.DataFrame, spec: ModelSpec, rows: int, features: Features | None) -> Mapping[str, ModelOutput]:
        """Return the predictions of each baseline for `rows` test rows; `features` is None if the training texts have no words."""

    def slices(self, labels: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return slices of the test set by label."""

    def tables(self, rows: pd.DataFrame, predictions: Predictions) -> tuple[ReportTable, ...]:
        """Return the report tables."""


def kind_of(options: Options) -> Kind:
    """Return the kind selected by the options."""
    return cast(Kind, import_module(f"components.model.tasks.text_classification.{options.kind}").Kind(options))
