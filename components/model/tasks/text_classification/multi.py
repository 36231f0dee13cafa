"""Any number of k labels: a sigmoid and binary cross-entropy a label, and a threshold a label, fitted on the validation split.

A label cell is a JSON list, or names with the separator between them; "[]" says that no label holds. An answer is a JSON list in the order
of the label map. A text has one set of labels: rows that name a text's labels one by one must be joined first.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from components.artifacts.predictions import ModelOutput, Predictions, probabilities_of
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.core.text import canonical_label
from components.model.support.metrics import Metric, f1, mean, ratio
from components.model.tasks.text_classification import weights
from components.model.tasks.text_classification.baselines import Features, labelled
from components.model.tasks.text_classification.kinds import Floats, Loss, scored
from components.model.tasks.text_classification.options import Options
from components.model.tasks.text_classification.single import label_indexes, named
from components.model.tasks.text_classification.tables import TableColumn, by_label
from components.model.tasks.text_classification.thresholds import DEFAULT, fit_thresholds

_SMOOTHED = "the targets of several labels are not one distribution"
_CALIBRATED = "the probabilities of several labels are not one distribution"

_MEASURES: dict[str, Metric] = {
    "micro_f1": Metric(("hits", "predicted", "expected"), f1, "F1 over all labels of all rows"),
    "subset_accuracy": mean("right", "share of the rows with exactly the expected labels"),
    "jaccard": mean("jaccard", "mean over rows of labels that are both expected and predicted among those that are either"),
    "micro_precision": Metric(("hits", "predicted"), ratio, "share of the predicted labels that are expected"),
    "micro_recall": Metric(("hits", "expected"), ratio, "share of the expected labels that are predicted"),
}


class Kind:
    """Any number of k labels."""

    classes = False
    one_answer = True
    scored = True
    ordered = False
    validation_metrics = ("micro_f1", "macro_f1", "average_precision", "subset_accuracy")
    baselines = ("majority", "tfidf")
    unsupported_settings: Mapping[str, str] = {
        "label_smoothing": _SMOOTHED,
        "r_drop": _SMOOTHED,
        "calibration": _CALIBRATED,
        "contrastive_start": "rows share some labels and differ in others, so they are neither of one label nor of another",
    }

    def __init__(self, options: Options) -> None:
        """Hold the options; macro-F1 is a measure where they name the labels."""
        self._options = options
        self.test_metrics: Mapping[str, Metric] = _MEASURES | ({"macro_f1": _macro(options.labels)} if options.labels else {})

    def rename_labels(self, cell: str, rename: Callable[[str], str]) -> str:
        """Return the cell with the labels' names; one that cannot be read is left for `label_of` to refuse."""
        try:
            names = _names(cell, self._options.separator)
        except ValueError:
            return cell
        new = [rename(name) for name in names]
        return cell if new == names else _text(list(dict.fromkeys(new)))

    def label_of(self, cell: str) -> str:
        """Return the labels in a cell as a sorted JSON list."""
        names = sorted({canonical_label(name) for name in _names(cell, self._options.separator)})
        if strange := [name for name in names if self._options.labels and name not in self._options.labels]:
            raise ValueError(f"label {strange[0]!r} is not in task_options.labels")
        return _text(names)

    def labels_of(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return all labels, those of the options or of the rows, sorted."""
        return tuple(sorted(self._options.labels or {name for cell in labels for name in _held(cell)}))

    def label_counts(self, labels: Sequence[str]) -> Mapping[str, int]:
        """Return the number of rows that hold each label."""
        return Counter(name for cell in labels for name in _held(cell))

    def fit_options(self, labels: Sequence[str]) -> Mapping[str, Any]:
        """Return, where weights are balanced, how much a row with a label counts for it: as much in all as the rows without it."""
        counts = self.label_counts(labels)
        if self._options.class_weights == "balanced":
            return {"class_weights": {name: round((len(labels) - rows) / rows, 6) or 1.0 for name, rows in sorted(counts.items())}}
        if isinstance(self._options.class_weights, dict):
            weights.check_named(self._options.class_weights, sorted(counts))
        return {}

    def targets(self, labels: Sequence[str], spec: ModelSpec) -> pa.Array:
        """Return a number a label: 1 where it holds, else 0."""
        found = np.zeros((len(labels), len(spec.labels)), dtype=np.float32)
        for row, cell in enumerate(labels):
            found[row, label_indexes(_held(cell), spec.labels)] = 1
        return pa.array(found.tolist(), pa.list_(pa.float32()))

    def outputs(self, spec: ModelSpec) -> Mapping[str, Any]:
        """Return the names of k outputs."""
        return named(spec.labels) | {"problem_type": "multi_label_classification"}

    def loss(self, spec: ModelSpec, smoothing: float) -> Loss | None:
        """Return binary cross-entropy with a weight on what holds, or None: unweighted, it is the model's own."""
        found = weights.in_order(spec.options.get("class_weights"), spec.labels)
        return None if found is None else _weighted(found)

    def scores(self, logits: Any, spec: ModelSpec) -> Any:
        """Return the probability of each label by itself."""
        return logits.sigmoid()

    def answers(self, scores: Floats, spec: ModelSpec) -> ModelOutput:
        """Return the labels whose probability reaches their threshold."""
        return _answers(scores, spec.options.get("thresholds") or {}, spec.labels)

    def calibrate(self, scores: Floats, labels: Sequence[str], spec: ModelSpec) -> Mapping[str, Any]:
        """Return thresholds that give each label its best F1; a threshold of the options stays."""
        expected = _marked(labels, spec.labels)
        fitted = dict(zip(spec.labels, fit_thresholds(scores, expected), strict=True))
        return {"thresholds": fitted | {name: value for name, value in self._options.thresholds.items() if name in fitted}}

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Return the metrics; what is answered here has a probability of 0.5 or more, the thresholds come after training.

        Macro-F1 is over all labels; the mean average precision, which needs no threshold, over those that some row has.
        """
        from sklearn.metrics import average_precision_score, f1_score

        logits, truth = np.asarray(outputs, dtype=np.float64), np.asarray(expected) > 0
        predicted, seen = logits >= 0, truth.any(axis=0)
        averages = {f"{kind}_f1": float(f1_score(truth, predicted, average=kind, zero_division=0.0)) for kind in ("micro", "macro")}
        ranked = average_precision_score(truth[:, seen], logits[:, seen], average="macro") if seen.any() else 0.0
        return {**averages, "average_precision": float(ranked), "subset_accuracy": float((predicted == truth).all(axis=1).mean())}

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return the numbers of labels expected, predicted and both, of all and, where the options name them, of each."""
        truth, answers = [set(_held(cell)) for cell in expected], [set(_held(cell)) for cell in predicted]
        pairs = list(zip(truth, answers, strict=True))
        found = {
            "hits": [len(one & other) for one, other in pairs],
            "predicted": [len(other) for other in answers],
            "expected": [len(one) for one in truth],
            "right": [one == other for one, other in pairs],
            "jaccard": [len(one & other) / len(one | other) if one | other else 1.0 for one, other in pairs],
            "rows": [1.0] * len(pairs),
        }
        for name in self._options.labels:
            found |= {
                f"hits {name}": [name in one & other for one, other in pairs],
                f"either {name}": [_twice(name, *both) for both in pairs],
            }
        return {name: np.array(values, dtype=np.float64) for name, values in found.items()}

    def predict_baselines(self, train: pd.DataFrame, spec: ModelSpec, rows: int, features: Features | None) -> Mapping[str, ModelOutput]:
        """Return the commonest set of labels, and what TF-IDF with logistic regressions says at thresholds of its own."""
        expected = _marked(train["label"].tolist(), spec.labels)
        shares = np.tile(expected.mean(axis=0), (rows, 1))
        commonest = Counter(train["label"]).most_common(1)[0][0]
        majority = scored([commonest] * rows, shares, spec.labels)
        if features is None:
            return {"majority": majority, "tfidf": majority}
        apart, scores = labelled(features, expected)
        return {
            "majority": majority,
            "tfidf": _answers(scores, dict(zip(spec.labels, fit_thresholds(apart, expected), strict=True)), spec.labels),
        }

    def slices(self, labels: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the number of expected labels."""
        return {"labels": [str(count) if count < 4 else "4 or more" for count in map(len, map(_held, labels))]}

    def tables(self, rows: pd.DataFrame, found: Predictions) -> tuple[ReportTable, ...]:
        """Return precision, recall, F1, AUROC and average precision of each label."""
        by_name = probabilities_of(found.measured)
        names = sorted(by_name)
        truth, answers = _marked(found.expected.tolist(), names), _marked(found.predicted.tolist(), names)
        columns = [TableColumn(name, truth[:, place], answers[:, place], by_name[name]) for place, name in enumerate(names)]
        return (by_label("Labels, the commonest first", columns),)


def _names(cell: str, separator: str) -> list[str]:
    """Return the labels in a cell of the data; ValueError says what is wrong with it."""
    if not cell.lstrip().startswith("["):
        names: list[object] = list(cell.split(separator))
    else:
        try:
            names = json.loads(cell)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"label starts as a JSON list and is none: {error}") from None
    if bad := [name for name in names if isinstance(name, bool) or not isinstance(name, str | int)]:
        raise ValueError(f"label is a list with something that is no name: {json.dumps(bad[0])[:40]}")
    texts = [str(name).strip(" \t") for name in names]
    if not all(map(canonical_label, texts)):
        raise ValueError("label has an empty name among its labels")
    return texts


def _held(cell: str) -> list[str]:
    """Return the labels of an answer."""
    return list(json.loads(cell))


def _text(names: Sequence[str]) -> str:
    return json.dumps(list(names), ensure_ascii=False)


def _marked(cells: Sequence[str], labels: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which of `labels` each cell holds, (rows, labels)."""
    held = [set(_held(cell)) for cell in cells]
    return np.array([[label in one for label in labels] for one in held], dtype=np.bool_).reshape(len(held), len(labels))


def _answers(scores: Floats, thresholds: Mapping[str, float], labels: tuple[str, ...]) -> ModelOutput:
    limits = np.array([thresholds.get(label, DEFAULT) for label in labels])
    return scored([_text([labels[place] for place in np.flatnonzero(row)]) for row in scores >= limits], scores, labels)


def _twice(name: str, expected: set[str], predicted: set[str]) -> int:
    return (name in expected) + (name in predicted)


def _macro(labels: Sequence[str]) -> Metric:
    """Return the mean over `labels` of their F1, 0 for one that is neither expected nor predicted, as a function of two sums a label."""

    def value(*sums: Floats) -> Floats:
        of = [ratio(2 * np.asarray(hits), either) for hits, either in zip(sums[::2], sums[1::2], strict=True)]
        return np.asarray(np.mean(of, axis=0), dtype=np.float64)

    names = tuple(f"{part} {label}" for label in labels for part in ("hits", "either"))
    return Metric(names, value, "mean over the labels of their F1")


def _weighted(of_labels: Sequence[float]) -> Loss:
    import torch

    def loss(logits: Any, labels: Any) -> Any:
        weight = torch.tensor(of_labels, device=logits.device)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), labels.float(), pos_weight=weight)

    return loss
