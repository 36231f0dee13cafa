"""Regression: squared error of (label - centre) / spread, so that a learning rate suits every unit."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from components.artifacts.predictions import ModelOutput, Predictions
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.model.support import linear_probe
from components.model.support.cross_validation import Ints, make_folds
from components.model.support.frozen_features import FrozenFeatures
from components.model.support.metrics import Floats, Metric
from components.model.support.pretrained import label_settings
from components.model.tasks import Baseline
from components.model.tasks.text_classification import Task, baselines, numbers
from components.model.tasks.text_classification.tables import by_number

_WHY = "a number has no label distribution"
_QUARTERS = ("lowest quarter", "second quarter", "third quarter", "highest quarter")


class Kind(Task):
    """A number; equal texts may have different numbers, e.g. ratings."""

    label_column = None
    validation_metrics = ("r2", "spearman", "pearson", "neg_mse", "neg_mae")
    test_metrics: Mapping[str, Metric] = {
        "r2": numbers.R2,
        "spearman": numbers.SPEARMAN,
        "neg_mse": numbers.NEG_MSE,
        "neg_mae": numbers.NEG_MAE,
        "pearson": numbers.PEARSON,
    }
    baselines = ("mean", "tfidf", "probe")
    unsupported_settings: Mapping[str, str] = {
        "label_smoothing": _WHY,
        "r_drop": _WHY,
        "calibration": _WHY,
        "class_biases": _WHY,
        "contrastive_start": "rows with numbers do not share labels",
    }

    def label_of(self, cell: str) -> str:
        """Return the normalised number of a cell."""
        return numbers.text(numbers.parse(cell))

    def fit_options(self, train: pd.DataFrame) -> Mapping[str, Any]:
        """Return centre and spread, from the options or else mean and standard deviation of the training labels."""
        values = np.array(train["label"].tolist(), dtype=np.float64)
        centre, spread = float(values.mean()), float(values.std()) or 1.0
        options = self.options
        return {
            "centre": float(f"{centre:.8g}") if options.centre is None else options.centre,
            "spread": float(f"{spread:.8g}") if options.spread is None else options.spread,
        }

    def targets(self, labels: Sequence[str], spec: ModelSpec) -> pa.Array:
        """Return (label - centre) / spread."""
        centre, spread = _scale(spec)
        return pa.array(((np.array(labels, dtype=np.float64) - centre) / spread).astype(np.float32), pa.float32())

    def outputs(self, spec: ModelSpec) -> Mapping[str, Any]:
        """Return the name of the one output."""
        return label_settings(["number"]) | {"problem_type": "regression"}

    def fit_head(self, features: FrozenFeatures, spec: ModelSpec, metric: str) -> linear_probe.LinearHead | None:
        """Return the head of ridge regression."""
        return self.fitted(features, spec, metric, linear_probe.ridge)

    def scores(self, logits: Any, spec: ModelSpec) -> Any:
        """Return numbers in the unit of the label, (rows, 1)."""
        centre, spread = _scale(spec)
        return logits * spread + centre

    def answers(self, scores: Floats, spec: ModelSpec) -> ModelOutput:
        """Return the numbers with five significant digits."""
        return ModelOutput.texts([numbers.answer(float(number)) for number in scores[:, 0]])

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Compute the metrics in the unit of the label."""
        predicted, truth = (self.scores(np.asarray(values, dtype=np.float64).reshape(-1), spec) for values in (outputs, expected))
        statistics = numbers.sums(truth, predicted)
        return {name: self.test_metrics[name].of(statistics) for name in self.validation_metrics}

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return the statistics of `numbers.sums`."""
        return numbers.sums(np.array(expected, dtype=np.float64), np.array(predicted, dtype=np.float64))

    def fit_baselines(self, train: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, Baseline]:
        """Predict the mean, with TF-IDF and ridge regression, and with a linear probe, tuned for R²."""
        labels = np.array(train["label"].tolist(), dtype=np.float64)
        tfidf = baselines.TfIdf.fit(train, self.options.pair)

        def mean(rows: pd.DataFrame) -> Floats:
            return np.full(len(rows), labels.mean())

        def score(predicted: Floats, rows: Ints) -> float:
            return numbers.R2.of(numbers.sums(labels[rows], predicted))

        folds = make_folds(train["group"].tolist())
        fitted = mean if tfidf is None else baselines.regressor(tfidf, labels, folds, score, {"none": None})
        models = {"mean": partial(_numbers, mean), "tfidf": partial(_numbers, fitted)}
        return {**models, "probe": self.probe(train, spec, base, models["tfidf"])}

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return the quartile of each expected number."""
        return {"label": [_QUARTERS[quarter] for quarter in numbers.quarters([float(label) for label in rows["label"]])]}

    def tables(self, rows: pd.DataFrame, predictions: Predictions) -> tuple[ReportTable, ...]:
        """Return mean answers per quartile of the expected numbers, and the largest errors."""
        expected, predicted = (np.array(values.tolist(), dtype=np.float64) for values in (predictions.expected, predictions.predicted))
        quarter = np.array(numbers.quarters(expected.tolist()))
        by_quarter = by_number(
            "By expected number", [(name, quarter == number) for number, name in enumerate(_QUARTERS)], expected, predicted
        )
        far = np.argsort(-np.abs(expected - predicted), kind="stable")[:10]
        texts = [str(rows["text"].iloc[row])[:200] for row in far]
        errors = tuple((text, float(expected[row]), float(predicted[row])) for text, row in zip(texts, far, strict=True))
        return (by_quarter, ReportTable(title="Largest errors", columns=("text", "expected", "predicted"), rows=errors))


def _numbers(predict: baselines.Predict, rows: pd.DataFrame) -> ModelOutput:
    return ModelOutput.texts([numbers.answer(float(number)) for number in predict(rows)])


def _scale(spec: ModelSpec) -> tuple[float, float]:
    """Return centre and spread of `spec`; 0 and 1 if they are not fitted."""
    return float(spec.options.get("centre") or 0.0), float(spec.options.get("spread") or 1.0)
