"""A number: squared error. What is learnt is (label - centre) / spread, so that a learning rate means the same for every unit."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from components.artifacts.predictions import ModelOutput, Predictions
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.model.support.metrics import Metric
from components.model.tasks.text_classification import numbers
from components.model.tasks.text_classification.baselines import Features, regressed
from components.model.tasks.text_classification.kinds import Floats, Loss
from components.model.tasks.text_classification.options import Options
from components.model.tasks.text_classification.single import named
from components.model.tasks.text_classification.tables import by_number

_WHY = "a number has no other labels that a target or a probability could go to"
_QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")


class Kind:
    """A number; equal texts may have different ones, as ratings do."""

    classes = False
    one_answer = False
    scored = False
    ordered = False
    validation_metrics = ("r2", "spearman", "pearson", "neg_mse", "neg_mae")
    test_metrics: Mapping[str, Metric] = {
        "r2": numbers.R2,
        "spearman": numbers.SPEARMAN,
        "neg_mse": numbers.NEG_MSE,
        "neg_mae": numbers.NEG_MAE,
        "pearson": numbers.PEARSON,
    }
    baselines = ("mean", "tfidf")
    unsupported_settings: Mapping[str, str] = {
        "label_smoothing": _WHY,
        "r_drop": _WHY,
        "calibration": _WHY,
        "contrastive_start": "numbers have no rows of the same label",
    }

    def __init__(self, options: Options) -> None:
        """Hold the options."""
        self._options = options

    def rename_labels(self, cell: str, rename: Callable[[str], str]) -> str:
        """Return the cell: a number has no name."""
        return cell

    def label_of(self, cell: str) -> str:
        """Return the number in a cell."""
        return numbers.text(numbers.parse(cell))

    def labels_of(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return no labels."""
        return ()

    def label_counts(self, labels: Sequence[str]) -> Mapping[str, int]:
        """Return no labels."""
        return {}

    def fit_options(self, labels: Sequence[str]) -> Mapping[str, Any]:
        """Return centre and spread in force: those of the options, or mean and standard deviation of the training labels."""
        values = np.array(labels, dtype=np.float64)
        centre, spread = float(values.mean()), float(values.std()) or 1.0
        given = self._options
        return {
            "centre": float(f"{centre:.8g}") if given.centre is None else given.centre,
            "spread": float(f"{spread:.8g}") if given.spread is None else given.spread,
        }

    def targets(self, labels: Sequence[str], spec: ModelSpec) -> pa.Array:
        """Return (label - centre) / spread."""
        centre, spread = _scale(spec)
        return pa.array(((np.array(labels, dtype=np.float64) - centre) / spread).astype(np.float32), pa.float32())

    def outputs(self, spec: ModelSpec) -> Mapping[str, Any]:
        """Return the name of the one output."""
        return named(["number"]) | {"problem_type": "regression"}

    def loss(self, spec: ModelSpec, smoothing: float) -> Loss | None:
        """Return None: squared error is the model's own loss."""
        return None

    def scores(self, logits: Any, spec: ModelSpec) -> Any:
        """Return numbers in the label's unit, (rows, 1)."""
        centre, spread = _scale(spec)
        return logits * spread + centre

    def answers(self, scores: Floats, spec: ModelSpec) -> ModelOutput:
        """Return the numbers, to five significant digits."""
        return ModelOutput.texts([numbers.answer(float(number)) for number in scores[:, 0]])

    def calibrate(self, scores: Floats, labels: Sequence[str], spec: ModelSpec) -> Mapping[str, Any]:
        """Return nothing."""
        return {}

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Return the metrics, in the label's unit."""
        found, truth = (self.scores(np.asarray(each, dtype=np.float64).reshape(-1), spec) for each in (outputs, expected))
        statistics = numbers.sums(truth, found)
        return {name: self.test_metrics[name].of(statistics) for name in self.validation_metrics}

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return the sums of `numbers.sums`."""
        return numbers.sums(np.array(expected, dtype=np.float64), np.array(predicted, dtype=np.float64))

    def predict_baselines(self, train: pd.DataFrame, spec: ModelSpec, rows: int, features: Features | None) -> Mapping[str, ModelOutput]:
        """Return the mean, and what TF-IDF with ridge regression says."""
        known = np.array(train["label"].tolist(), dtype=np.float64)
        mean = ModelOutput.texts([numbers.answer(float(known.mean()))] * rows)
        found = mean if features is None else ModelOutput.texts([numbers.answer(float(number)) for number in regressed(features, known)])
        return {"mean": mean, "tfidf": found}

    def slices(self, labels: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the quarter that each expected number is in."""
        return {"label": [_QUARTERS[place] for place in numbers.quarters([float(label) for label in labels])]}

    def tables(self, rows: pd.DataFrame, found: Predictions) -> tuple[ReportTable, ...]:
        """Return what is answered to each quarter of the expected numbers, and the answers that are furthest off."""
        expected, predicted = (np.array(each.tolist(), dtype=np.float64) for each in (found.expected, found.predicted))
        place = np.array(numbers.quarters(expected.tolist()))
        by_quarter = by_number("By expected number", [(name, place == at) for at, name in enumerate(_QUARTERS)], expected, predicted)
        far = np.argsort(-np.abs(expected - predicted), kind="stable")[:10]
        texts = [str(rows["text"].iloc[row])[:200] for row in far]
        off = tuple((text, float(expected[row]), float(predicted[row])) for text, row in zip(texts, far, strict=True))
        return (by_quarter, ReportTable(title="Furthest off", columns=("text", "expected", "predicted"), rows=off))


def _scale(spec: ModelSpec) -> tuple[float, float]:
    """Return centre and spread of `spec`; 0 and 1 where nothing was fitted."""
    return float(spec.options.get("centre") or 0.0), float(spec.options.get("spread") or 1.0)
