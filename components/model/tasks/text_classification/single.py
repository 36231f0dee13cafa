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
from components.core.errors import BadData
from components.core.text import canonical_label
from components.model.support.metrics import Metric, mean
from components.model.tasks.text_classification import baselines, weights
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
    validation_metrics = ("macro_f1", "accuracy")
    test_metrics: Mapping[str, Metric] = {"accuracy": mean("right", "share of the rows that are right")}
    baselines = ("majority", "tfidf")
    unsupported_settings: Mapping[str, str] = {}

    def __init__(self, options: Options) -> None:
        """Hold the options."""
        self._options = options

    def rename_labels(self, cell: str, rename: Callable[[str], str]) -> str:
        """Return the label's name."""
        return rename(cell)

    def label_of(self, cell: str) -> str:
        """Return the label."""
        return canonical_label(cell)

    def labels_of(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the labels, sorted."""
        return tuple(sorted(set(labels)))

    def label_counts(self, labels: Sequence[str]) -> Mapping[str, int]:
        """Return the number of rows of each label."""
        return {str(label): int(count) for label, count in pd.Series(labels, dtype="str").value_counts().items()}

    def fit_options(self, labels: Sequence[str]) -> Mapping[str, Any]:
        """Return the weights of the classes, where they are asked for."""
        return fitted_weights(self._options, self.label_counts(labels))

    def targets(self, labels: Sequence[str], spec: ModelSpec) -> pa.Array:
        """Return each label's number."""
        return pa.array(label_indexes(labels, spec.labels), pa.int64())

    def outputs(self, spec: ModelSpec) -> Mapping[str, Any]:
        """Return the names of k outputs."""
        return named(spec.labels) | {"problem_type": "single_label_classification"}  # what the first loss would write, were one taken

    def loss(self, spec: ModelSpec, smoothing: float) -> Loss | None:
        """Return weighted cross-entropy, or None: unweighted, it is the model's own."""
        found = weights.in_order(spec.options.get("class_weights"), spec.labels)
        return None if found is None else _weighted(found, smoothing)

    def scores(self, logits: Any, spec: ModelSpec) -> Any:
        """Return the probability of each label, at the temperature of `spec`."""
        import torch

        return torch.softmax(logits / spec.temperature, dim=-1)

    def answers(self, scores: Floats, spec: ModelSpec) -> ModelOutput:
        """Return the likeliest label."""
        return ModelOutput.classes(scores, spec.labels)

    def calibrate(self, scores: Floats, labels: Sequence[str], spec: ModelSpec) -> Mapping[str, Any]:
        """Return nothing."""
        return {}

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Return macro-F1 and accuracy; macro-F1 runs over all labels, a class without rows counts 0.

        The list is fixed so that the same number means the same from one evaluation to the next.
        """
        from sklearn.metrics import f1_score

        predicted = np.asarray(outputs).argmax(axis=-1)
        macro = f1_score(expected, predicted, labels=list(range(len(spec.labels))), average="macro", zero_division=0.0)
        return {"macro_f1": float(macro), "accuracy": float(np.mean(predicted == expected))}

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return `right`, 1 for a row with the expected label, and `rows`."""
        right = np.array([one == other for one, other in zip(expected, predicted, strict=True)], dtype=np.float64)
        return {"right": right, "rows": np.ones(len(right))}

    def predict_baselines(self, train: pd.DataFrame, spec: ModelSpec, rows: int, features: Features | None) -> Mapping[str, ModelOutput]:
        """Return the commonest label, and what TF-IDF with logistic regression says."""
        shares = train["label"].value_counts(normalize=True).reindex(list(spec.labels), fill_value=0.0).to_numpy(dtype=np.float64)
        majority = np.tile(shares, (rows, 1)).astype(np.float64)
        tfidf = baselines.classified(features, train["label"].tolist(), spec.labels) if features else None
        if tfidf is None:
            log.warning("the training texts have no words, or one label only: TF-IDF answers as the majority does")
            tfidf = majority
        return {"majority": ModelOutput.classes(majority, spec.labels), "tfidf": ModelOutput.classes(tfidf, spec.labels)}

    def slices(self, labels: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the expected label of each row."""
        return {"label": list(labels)}

    def tables(self, rows: pd.DataFrame, found: Predictions) -> tuple[ReportTable, ...]:
        """Return precision, recall, F1 and one-vs-rest AUROC of each label."""
        columns = [
            TableColumn(label, found.expected == label, found.predicted == label, found.probabilities[:, place])
            for place, label in enumerate(found.labels)
        ]
        return (by_label("Labels, the commonest first", columns),)


def label_indexes(labels: Sequence[str], known: Sequence[str]) -> list[int]:
    """Return the place of each label in the map `known`.

    Raises:
        BadData: with the labels that are not in it.
    """
    number = {label: place for place, label in enumerate(known)}
    if strange := sorted(set(labels) - set(number)):
        raise BadData(f"labels {', '.join(map(repr, strange))} are not in the label map ({', '.join(known)})")
    return [number[label] for label in labels]


def named(names: Sequence[str]) -> dict[str, Any]:
    """Return the settings of a config that name the model's outputs."""
    return {"id2label": dict(enumerate(names)), "label2id": {name: place for place, name in enumerate(names)}}


def fitted_weights(options: Options, counts: Mapping[str, int]) -> dict[str, Any]:
    """Return the options with the weights in force: fitted to `counts` where they are `balanced`."""
    if options.class_weights == "balanced":
        return {"class_weights": weights.balanced(counts)}
    if isinstance(options.class_weights, dict):
        weights.check_named(options.class_weights, sorted(counts))
    return {}


def _weighted(of_labels: Sequence[float], smoothing: float) -> Loss:
    """Return cross-entropy with a weight a label; a sum over rows divided by their number, so that no row hangs on its company."""
    import torch

    def loss(logits: Any, labels: Any) -> Any:
        weight = torch.tensor(of_labels, device=logits.device)
        total = torch.nn.functional.cross_entropy(logits.float(), labels, weight=weight, reduction="sum", label_smoothing=smoothing)
        return total / len(labels)

    return loss
