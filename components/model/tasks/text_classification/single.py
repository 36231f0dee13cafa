"""One of k labels: softmax and cross-entropy."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from components.artifacts.predictions import ModelOutput, Predictions
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.core.errors import BadData, BadParams
from components.core.text import canonical_label
from components.model.support.metrics import Metric, mean
from components.model.tasks.text_classification import baselines
from components.model.tasks.text_classification.baselines import Features
from components.model.tasks.text_classification.kinds import Floats, Loss
from components.model.tasks.text_classification.options import Options
from components.model.tasks.text_classification.tables import TableColumn, by_label

log = logging.getLogger(__name__)


class Kind:
    """One of k labels."""

    classes = True
    one_answer = True
    scored = False
    ordered = False
    validation_metrics: tuple[str, ...] = ("macro_f1", "accuracy")
    test_metrics: Mapping[str, Metric] = {"accuracy": mean("right", "share of the rows that are right")}
    baselines = ("majority", "tfidf")
    unsupported_settings: Mapping[str, str] = {}

    def __init__(self, options: Options) -> None:
        """Store the options."""
        self._options = options

    def rename_labels(self, cell: str, rename: Callable[[str], str]) -> str:
        """Apply `rename` to the label."""
        return rename(cell)

    def label_of(self, cell: str) -> str:
        """Return the label."""
        return canonical_label(cell)

    def labels_of(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the labels, sorted."""
        return tuple(sorted(set(labels)))

    def label_counts(self, labels: Sequence[str]) -> Mapping[str, int]:
        """Return the number of rows with each label."""
        return {str(label): int(count) for label, count in pd.Series(labels, dtype="str").value_counts().items()}

    def fit_options(self, labels: Sequence[str]) -> Mapping[str, Any]:
        """Compute the class weights if they are enabled."""
        return fitted_weights(self._options, self.label_counts(labels))

    def targets(self, labels: Sequence[str], spec: ModelSpec) -> pa.Array:
        """Return the index of each label."""
        return pa.array(label_indexes(labels, spec.labels), pa.int64())

    def outputs(self, spec: ModelSpec) -> Mapping[str, Any]:
        """Return the names of k outputs."""
        return named(spec.labels) | {
            "problem_type": "single_label_classification"
        }  # what transformers sets when it computes the first loss

    def loss(self, spec: ModelSpec, smoothing: float) -> Loss | None:
        """Return weighted cross-entropy; None without weights: the model uses the same loss."""
        class_weights = weights_in_order(spec.options.get("class_weights"), spec.labels)
        return None if class_weights is None else _weighted(class_weights, smoothing)

    def scores(self, logits: Any, spec: ModelSpec) -> Any:
        """Return label probabilities at the temperature of `spec`."""
        import torch

        return torch.softmax(logits / spec.temperature, dim=-1)

    def answers(self, scores: Floats, spec: ModelSpec) -> ModelOutput:
        """Return the most likely label."""
        return ModelOutput.classes(scores, spec.labels)

    def calibrate(self, scores: Floats, labels: Sequence[str], spec: ModelSpec) -> Mapping[str, Any]:
        """Return no options."""
        return {}

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

    def predict_baselines(self, train: pd.DataFrame, spec: ModelSpec, rows: int, features: Features | None) -> Mapping[str, ModelOutput]:
        """Predict the most common label, and with TF-IDF and logistic regression."""
        shares = train["label"].value_counts(normalize=True).reindex(list(spec.labels), fill_value=0.0).to_numpy(dtype=np.float64)
        majority = np.tile(shares, (rows, 1)).astype(np.float64)
        tfidf = baselines.classified(features, train["label"].tolist(), spec.labels) if features else None
        if tfidf is None:
            log.warning("the training texts have no words or only one label: the TF-IDF baseline equals the majority baseline")
            tfidf = majority
        return {"majority": ModelOutput.classes(majority, spec.labels), "tfidf": ModelOutput.classes(tfidf, spec.labels)}

    def slices(self, labels: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the expected label of each row."""
        return {"label": list(labels)}

    def tables(self, rows: pd.DataFrame, predictions: Predictions) -> tuple[ReportTable, ...]:
        """Return precision, recall, F1 and one-vs-rest AUROC per label."""
        columns = [
            TableColumn(label, predictions.expected == label, predictions.predicted == label, predictions.probabilities[:, index])
            for index, label in enumerate(predictions.labels)
        ]
        return (by_label("Labels, the most common first", columns),)


def label_indexes(labels: Sequence[str], label_map: Sequence[str]) -> list[int]:
    """Return the index of each label in `label_map`.

    Raises:
        BadData: labels are not in the map.
    """
    indexes = {label: index for index, label in enumerate(label_map)}
    if unknown := sorted(set(labels) - set(indexes)):
        raise BadData(f"labels {', '.join(map(repr, unknown))} are not in the label map ({', '.join(label_map)})")
    return [indexes[label] for label in labels]


def named(names: Sequence[str]) -> dict[str, Any]:
    """Return the config settings that name the model outputs."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


def fitted_weights(options: Options, counts: Mapping[str, int]) -> dict[str, Any]:
    """Compute the class weights from `counts` if they are `balanced`; else check the labels of given weights."""
    if options.class_weights == "balanced":
        return {"class_weights": balanced_weights(counts)}
    if isinstance(options.class_weights, dict):
        check_weights(options.class_weights, sorted(counts))
    return {}


def balanced_weights(counts: Mapping[str, int]) -> dict[str, float]:
    """Return n / (k * count) per label, with mean 1 over the n rows (King & Zeng, 2001; same as scikit-learn)."""
    present = {label: count for label, count in counts.items() if count}
    return {label: round(sum(present.values()) / (len(present) * count), 6) for label, count in sorted(present.items())}


def check_weights(weights: Mapping[str, float], labels: Sequence[str]) -> None:
    """Check that all weights belong to known labels.

    Raises:
        BadParams: a weight names an unknown label.
    """
    if unknown := sorted(set(weights) - set(labels)):
        names = ", ".join(map(repr, unknown))
        raise BadParams(f"params.yaml: task_options.class_weights has unknown labels {names}; the training rows have: {', '.join(labels)}")


def weights_in_order(weights: object, labels: Sequence[str]) -> list[float] | None:
    """Return the weight of each label, 1 if it is not listed; None if there are no weights."""
    return [float(weights.get(label, 1.0)) for label in labels] if isinstance(weights, Mapping) else None


def _weighted(class_weights: Sequence[float], smoothing: float) -> Loss:
    """Return cross-entropy with label weights, divided by the number of rows: a row's loss does not depend on the batch."""
    import torch

    def loss(logits: Any, labels: Any) -> Any:
        weight = torch.tensor(class_weights, device=logits.device)
        total = torch.nn.functional.cross_entropy(logits.float(), labels, weight=weight, reduction="sum", label_smoothing=smoothing)
        return total / len(labels)

    return loss
