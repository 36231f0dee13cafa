"""One of k labels: softmax and cross-entropy."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.artifacts.predictions import ModelOutput, Predictions
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.model.support import linear_probe
from components.model.support.cross_validation import Ints
from components.model.support.frozen_features import FrozenFeatures
from components.model.support.metrics import Floats, Metric, mean
from components.model.support.pretrained import label_settings
from components.model.tasks import Baseline
from components.model.tasks.text_classification import Loss, Task, baselines, label_indexes, weights_in_order
from components.model.tasks.text_classification.tables import by_label

log = logging.getLogger(__name__)


class Kind(Task):
    """One of k labels."""

    classes = True
    one_answer = True
    validation_metrics: tuple[str, ...] = ("macro_f1", "accuracy")
    test_metrics: Mapping[str, Metric] = {"accuracy": mean("right", "share of the rows that are right")}
    baselines: tuple[str, ...] = ("majority", "tfidf", "probe")

    def labels_of(self, rows: pd.DataFrame) -> tuple[str, ...]:
        """Return the labels, sorted."""
        return tuple(sorted(set(rows["label"])))

    def label_counts(self, rows: pd.DataFrame) -> Mapping[str, int]:
        """Return the number of rows with each label."""
        return {str(label): int(count) for label, count in rows["label"].astype("str").value_counts().items()}

    def outputs(self, spec: ModelSpec) -> Mapping[str, Any]:
        """Return the names of k outputs, and the problem type that transformers sets when it computes the first loss."""
        return label_settings(spec.labels) | {"problem_type": "single_label_classification"}

    def loss(self, spec: ModelSpec, smoothing: float) -> Loss | None:
        """Return weighted cross-entropy, divided by the number of rows: a row's loss does not depend on the batch.

        None without weights: the model uses the same loss.
        """
        import torch

        if (class_weights := weights_in_order(spec)) is None:
            return None

        def loss(logits: Any, labels: Any) -> Any:
            weight = torch.tensor(class_weights, device=logits.device)
            total = torch.nn.functional.cross_entropy(logits.float(), labels, weight=weight, reduction="sum", label_smoothing=smoothing)
            return total / len(labels)

        return loss

    def fit_head(self, features: FrozenFeatures, spec: ModelSpec, metric: str) -> linear_probe.LinearHead | None:
        """Return the head of multinomial logistic regression, with the class weights of `spec` or else the better of none and balanced."""
        given = weights_in_order(spec)
        solver = linear_probe.multinomial(len(spec.labels), given)
        return self.fitted(features, spec, metric, solver, *linear_probe.weightings(given), stratify=True)

    def scores(self, logits: Any, spec: ModelSpec) -> Any:
        """Return label probabilities at the temperature of `spec`."""
        return (logits / spec.temperature).softmax(dim=-1)

    def answers(self, scores: Floats, spec: ModelSpec) -> ModelOutput:
        """Return the most likely label."""
        return ModelOutput.classes(scores, spec.labels)

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Compute macro-F1 and accuracy.

        Macro-F1 is over all labels, 0 for a class without rows, so that values of different evaluations are comparable.
        """
        from sklearn.metrics import f1_score

        predicted = np.asarray(outputs).argmax(axis=-1)
        macro = f1_score(expected, predicted, labels=list(range(len(spec.labels))), average="macro", zero_division=0.0)
        return {"macro_f1": float(macro), "accuracy": float(np.mean(predicted == expected))}

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return `right` (1 for a correct row) and `rows`."""
        right = np.array([truth == answer for truth, answer in zip(expected, predicted, strict=True)], dtype=np.float64)
        return {"right": right, "rows": np.ones(len(right))}

    def fit_baselines(self, train: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, Baseline]:
        """Predict the most common label, with TF-IDF and logistic regression, and with a linear probe; tuned for the first metric."""
        shares = train["label"].value_counts(normalize=True).reindex(list(spec.labels), fill_value=0.0).to_numpy(dtype=np.float64)
        targets = np.array(label_indexes(train["label"].tolist(), spec.labels), dtype=np.int64)
        tfidf = baselines.TfIdf.fit(train, self.options.pair) if len(set(targets)) > 1 else None

        def majority(rows: pd.DataFrame) -> Floats:
            return np.tile(shares, (len(rows), 1))

        def score(probabilities: Floats, rows: Ints) -> float:
            return self.validate(probabilities, targets[rows], spec)[self.validation_metrics[0]]

        if tfidf is None:
            log.warning("the training texts have no words or only one label: the TF-IDF baseline equals the majority baseline")
        fitted = majority if tfidf is None else baselines.classifier(tfidf, targets, len(spec.labels), train["group"].tolist(), score)
        models = {"majority": partial(_classes, majority, spec.labels), "tfidf": partial(_classes, fitted, spec.labels)}
        return {**models, "probe": self.probe(train, spec, base, models["tfidf"])}

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return the expected label of each row."""
        return {"label": rows["label"].tolist()}

    def tables(self, rows: pd.DataFrame, predictions: Predictions) -> tuple[ReportTable, ...]:
        """Return precision, recall, F1 and one-vs-rest AUROC per label."""
        names = np.array(predictions.labels)
        expected, predicted = (values[:, None] == names for values in (predictions.expected, predictions.predicted))
        return (by_label(predictions.labels, expected, predicted, predictions.probabilities),)


def _classes(predict: baselines.Predict, labels: Sequence[str], rows: pd.DataFrame) -> ModelOutput:
    return ModelOutput.classes(predict(rows), labels)
