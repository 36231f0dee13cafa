"""Multi-label classification: sigmoid, binary cross-entropy and a threshold per label, fitted on the validation split.

A label cell is a JSON list or names joined by the separator; "[]" means no label. An answer is a JSON list in the order of the label map.
Each text has one set of labels: join rows that list the labels of a text separately.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from components.artifacts.predictions import ModelOutput, Predictions, probabilities_of
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.core.text import canonical_label
from components.model.support import linear_probe
from components.model.support.cross_validation import Ints, make_folds
from components.model.support.frozen_features import FrozenFeatures
from components.model.support.metrics import Floats, Metric, f1, mean, ratio
from components.model.support.pretrained import label_settings
from components.model.tasks import Baseline
from components.model.tasks.text_classification import Loss, Options, Task, baselines, label_indexes, scored, weights_in_order
from components.model.tasks.text_classification.tables import by_label

DEFAULT = 0.5  # threshold
MIN_ROWS = 5
"""Labels with fewer rows get the shared threshold."""

_SMOOTHED = "the targets of several labels are not a single distribution"
_CALIBRATED = "the probabilities of several labels are not a single distribution"

_METRICS: dict[str, Metric] = {
    "micro_f1": Metric(("hits", "predicted", "expected"), f1, "F1 over all labels of all rows"),
    "subset_accuracy": mean("right", "share of the rows with exactly the expected labels"),
    "jaccard": mean("jaccard", "mean over rows of the Jaccard index of expected and predicted labels"),
    "micro_precision": Metric(("hits", "predicted"), ratio, "share of the predicted labels that are expected"),
    "micro_recall": Metric(("hits", "expected"), ratio, "share of the expected labels that are predicted"),
}


class Kind(Task):
    """Any number of k labels."""

    one_answer = True
    scored = True
    validation_metrics = ("micro_f1", "macro_f1", "average_precision", "subset_accuracy")
    baselines = ("majority", "tfidf", "probe")
    unsupported_settings: Mapping[str, str] = {
        "label_smoothing": _SMOOTHED,
        "r_drop": _SMOOTHED,
        "calibration": _CALIBRATED,
        "class_biases": "labels get thresholds instead: task_options.thresholds",
        "contrastive_start": "rows share some labels and differ in others, so a pair of rows is neither equal nor different",
    }

    def __init__(self, options: Options) -> None:
        """Add macro-F1 to the test metrics if the options list the labels."""
        super().__init__(options)
        self.test_metrics: Mapping[str, Metric] = _METRICS | ({"macro_f1": _macro(options.labels)} if options.labels else {})

    def rename_labels(self, cell: str, rename: Callable[[str], str]) -> str:
        """Apply `rename` to each label; return an unreadable cell unchanged, `label_of` rejects it."""
        try:
            names = _names(cell, self.options.separator)
        except ValueError:
            return cell
        new = [rename(name) for name in names]
        return cell if new == names else _text(list(dict.fromkeys(new)))

    def label_of(self, cell: str) -> str:
        """Return the labels of a cell as a sorted JSON list."""
        names = sorted({canonical_label(name) for name in _names(cell, self.options.separator)})
        if unknown := [name for name in names if self.options.labels and name not in self.options.labels]:
            raise ValueError(f"label {unknown[0]!r} is not in task_options.labels")
        return _text(names)

    def labels_of(self, rows: pd.DataFrame) -> tuple[str, ...]:
        """Return the sorted labels from the options, else from the rows."""
        return tuple(sorted(self.options.labels or self.label_counts(rows)))

    def label_counts(self, rows: pd.DataFrame) -> Mapping[str, int]:
        """Return the number of rows with each label."""
        return Counter(name for cell in rows["label"] for name in _parse(cell))

    def balanced(self, counts: Mapping[str, int], rows: int) -> Mapping[str, float]:
        """Return the weights with which positive and negative rows of a label have the same total weight."""
        return {name: round((rows - count) / count, 6) or 1.0 for name, count in sorted(counts.items())}

    def targets(self, labels: Sequence[str], spec: ModelSpec) -> pa.Array:
        """Return 1 for each label of a row, 0 for the others."""
        targets = np.zeros((len(labels), len(spec.labels)), dtype=np.float32)
        for row, cell in enumerate(labels):
            targets[row, label_indexes(_parse(cell), spec.labels)] = 1
        return pa.array(targets.tolist(), pa.list_(pa.float32()))

    def outputs(self, spec: ModelSpec) -> Mapping[str, Any]:
        """Return the names of k outputs."""
        return label_settings(spec.labels) | {"problem_type": "multi_label_classification"}

    def loss(self, spec: ModelSpec, smoothing: float) -> Loss | None:
        """Return binary cross-entropy with positive weights; None without weights: the model uses the same loss."""
        import torch

        if (positive_weights := weights_in_order(spec)) is None:
            return None

        def loss(logits: Any, labels: Any) -> Any:
            weight = torch.tensor(positive_weights, device=logits.device)
            return torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), labels.float(), pos_weight=weight)

        return loss

    def fit_head(self, features: FrozenFeatures, spec: ModelSpec, metric: str) -> linear_probe.LinearHead | None:
        """Return the head of one logistic regression per label, with positive weights as in `loss`."""
        given = weights_in_order(spec)

        def cases(targets: npt.NDArray[Any], weighting: str) -> tuple[npt.NDArray[Any], Floats]:
            counts = np.maximum(targets.sum(axis=0), 1.0)
            positive = {"none": 1.0, "balanced": (len(targets) - counts) / counts, "given": given}[weighting]
            return targets, np.where(targets > 0, positive, 1.0)

        return self.fitted(features, spec, metric, linear_probe.logistic(cases), *linear_probe.weightings(given))

    def scores(self, logits: Any, spec: ModelSpec) -> Any:
        """Return independent label probabilities."""
        return logits.sigmoid()

    def answers(self, scores: Floats, spec: ModelSpec) -> ModelOutput:
        """Return the labels whose probability reaches the threshold."""
        return _answers(scores, spec.options.get("thresholds") or {}, spec.labels)

    def calibrate(self, folder: Path, validation: pd.DataFrame) -> Mapping[str, Any]:
        """Fit the thresholds with the best F1 per label on the validation rows; thresholds in the options are kept."""
        predictor = self.predictor(folder)
        labels = predictor.spec.labels
        fitted = _thresholds(predictor.scores(validation), _mask(validation["label"], labels), labels)
        return {"thresholds": {**fitted, **{name: value for name, value in self.options.thresholds.items() if name in fitted}}}

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Compute the metrics at a threshold of 0.5; thresholds are fitted after training.

        Macro-F1 is over all labels; mean average precision, which needs no threshold, over labels with rows.
        """
        from sklearn.metrics import average_precision_score, f1_score

        logits, truth = np.asarray(outputs, dtype=np.float64), np.asarray(expected) > 0
        predicted, present = logits >= 0, truth.any(axis=0)
        averages = {f"{name}_f1": float(f1_score(truth, predicted, average=name, zero_division=0.0)) for name in ("micro", "macro")}
        ranked = average_precision_score(truth[:, present], logits[:, present], average="macro") if present.any() else 0.0
        return {**averages, "average_precision": float(ranked), "subset_accuracy": float((predicted == truth).all(axis=1).mean())}

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return the counts of expected, predicted and correct labels; also per label if the options list them."""
        truth, answers = [set(_parse(cell)) for cell in expected], [set(_parse(cell)) for cell in predicted]
        pairs = list(zip(truth, answers, strict=True))
        counts = {
            "hits": [len(right & answer) for right, answer in pairs],
            "predicted": [len(answer) for answer in answers],
            "expected": [len(right) for right in truth],
            "right": [right == answer for right, answer in pairs],
            "jaccard": [len(right & answer) / len(right | answer) if right | answer else 1.0 for right, answer in pairs],
            "rows": [1.0] * len(pairs),
        }
        for name in self.options.labels:
            counts |= {
                f"hits {name}": [name in right & answer for right, answer in pairs],
                f"either {name}": [(name in right) + (name in answer) for right, answer in pairs],
            }
        return {name: np.array(values, dtype=np.float64) for name, values in counts.items()}

    def fit_baselines(self, train: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, Baseline]:
        """Predict the most common label set, and with TF-IDF and a linear probe at thresholds fitted out of fold."""
        labels, cells = spec.labels, train["label"].tolist()
        expected = _mask(cells, labels)
        most_common = Counter(cells).most_common(1)[0][0]
        tfidf = baselines.TfIdf.fit(train, self.options.pair)

        def majority(rows: pd.DataFrame) -> ModelOutput:
            return scored([most_common] * len(rows), np.tile(expected.mean(axis=0), (len(rows), 1)), labels)

        def score(probabilities: Floats, rows: Ints) -> float:
            answers = _answers(probabilities, _thresholds(probabilities, expected[rows], labels), labels)
            statistics = self.statistics([cells[row] for row in rows], answers.predicted)
            return self.test_metrics[self.validation_metrics[0]].of(statistics)

        def probe_options(head: linear_probe.LinearHead) -> Mapping[str, Any]:
            probabilities = 1 / (1 + np.exp(-np.clip(head.outputs, -50, 50)))
            return {"thresholds": _thresholds(probabilities, head.expected > 0, labels) if len(probabilities) else {}}

        models = {"majority": majority, "tfidf": majority}
        if tfidf is not None:
            predict, out_of_fold = baselines.labeller(tfidf, expected, make_folds(train["group"].tolist()), score)
            thresholds = _thresholds(out_of_fold, expected, labels) if len(out_of_fold) else {}
            models["tfidf"] = lambda rows: _answers(predict(rows), thresholds, labels)
        return {**models, "probe": self.probe(train, spec, base, models["tfidf"], options=probe_options)}

    def slices(self, rows: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Return the number of expected labels."""
        return {"labels": [str(count) if count < 4 else "4 or more" for count in map(len, map(_parse, rows["label"]))]}

    def tables(self, rows: pd.DataFrame, predictions: Predictions) -> tuple[ReportTable, ...]:
        """Return precision, recall, F1, AUROC and average precision per label."""
        by_name = probabilities_of(predictions.measured)
        names = sorted(by_name)
        expected, predicted = (_mask(cells, names) for cells in (predictions.expected, predictions.predicted))
        return (by_label(names, expected, predicted, np.array([by_name[name] for name in names]).T),)


def _names(cell: str, separator: str) -> list[str]:
    """Return the labels of a data cell; raise ValueError with the reason if it is invalid."""
    if not cell.lstrip().startswith("["):
        names: list[object] = list(cell.split(separator))
    else:
        try:
            names = json.loads(cell)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"label is not a valid JSON list: {error}") from None
    if bad := [name for name in names if isinstance(name, bool) or not isinstance(name, str | int)]:
        raise ValueError(f"label is a list with an item that is not a name: {json.dumps(bad[0])[:40]}")
    texts = [str(name).strip(" \t") for name in names]
    if not all(map(canonical_label, texts)):
        raise ValueError("label contains an empty name")
    return texts


def _parse(cell: str) -> list[str]:
    """Parse an answer."""
    return list(json.loads(cell))


def _text(names: Sequence[str]) -> str:
    return json.dumps(list(names), ensure_ascii=False)


def _mask(cells: Iterable[str], labels: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return a mask of the labels in each cell, (rows, labels)."""
    sets = [set(_parse(cell)) for cell in cells]
    return np.array([[label in names for label in labels] for names in sets], dtype=np.bool_).reshape(len(sets), len(labels))


def _answers(scores: Floats, thresholds: Mapping[str, float], labels: tuple[str, ...]) -> ModelOutput:
    limits = np.array([thresholds.get(label, DEFAULT) for label in labels])
    return scored([_text([labels[index] for index in np.flatnonzero(row)]) for row in scores >= limits], scores, labels)


def _macro(labels: Sequence[str]) -> Metric:
    """Return macro-F1 as a function of two sums per label; F1 is 0 for a label that is neither expected nor predicted."""

    def value(*sums: Floats) -> Floats:
        scores = [ratio(2 * np.asarray(hits), either) for hits, either in zip(sums[::2], sums[1::2], strict=True)]
        return np.asarray(np.mean(scores, axis=0), dtype=np.float64)

    names = tuple(f"{part} {label}" for label in labels for part in ("hits", "either"))
    return Metric(names, value, "mean over the labels of their F1")


def _thresholds(probabilities: Floats, expected: npt.NDArray[np.bool_], labels: Sequence[str]) -> Mapping[str, float]:
    return dict(zip(labels, fit_thresholds(probabilities, expected), strict=True))


def fit_thresholds(probabilities: Floats, expected: npt.NDArray[np.bool_]) -> list[float]:
    """Return one threshold per label from probabilities and expected labels, both (rows, labels).

    They maximise macro-F1: Lipton, Elkan & Naryanaswamy, "Optimal Thresholding of Classifiers to Maximize F1 Measure" (2014). Rare labels
    would overfit (Yang, "A Study of Thresholding Strategies for Text Categorization", 2001); they share the threshold with the best
    micro-F1 over all labels.
    """
    shared = best_threshold(probabilities.ravel(), expected.ravel())
    enough = expected.sum(axis=0) >= MIN_ROWS
    return [best_threshold(*column) if fitted else shared for *column, fitted in zip(probabilities.T, expected.T, enough, strict=True)]


def best_threshold(probabilities: Floats, expected: npt.NDArray[np.bool_]) -> float:
    """Return the threshold with the highest F1, on ties the nearest to 0.5; 0.5 if no row has the label.

    Candidates are midpoints of neighbouring probabilities, rounded to four digits so that hardware differences do not change the model.
    """
    if not expected.any():
        return DEFAULT
    order = np.argsort(-probabilities, kind="stable")
    ranked, hits = probabilities[order], np.cumsum(expected[order])
    below = np.append(ranked[1:], 0.0)
    cuts = np.flatnonzero(ranked > below)
    scores = 2 * hits[cuts] / (cuts + 1 + expected.sum())
    candidates = np.round((ranked[cuts] + below[cuts]) / 2, 4)
    best = candidates[scores >= scores.max() - 1e-12]
    return float(np.clip(best[np.abs(best - DEFAULT).argmin()], 1e-4, 1.0))
