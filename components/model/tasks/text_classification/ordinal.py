"""Ordinal classification (CORN): K - 1 logits for K levels, each the conditional probability of exceeding a level.

Shi, Cao & Raschka, "Deep Neural Networks for Rank-Consistent Ordinal Regression Based On Conditional Probabilities" (2021). Products of the
conditional probabilities decrease from level to level, so the ranks are consistent. The answer is the median level: the number of levels
exceeded with a probability above 0.5. Levels are listed in the option `levels` (metrics use their index) or are numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.artifacts.predictions import ModelOutput, Predictions
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.core.text import canonical_label
from components.model.support import linear_probe
from components.model.support.cross_validation import Ints, make_folds
from components.model.support.frozen_features import FrozenFeatures
from components.model.support.metrics import Floats, Metric, mean
from components.model.support.pretrained import label_settings
from components.model.tasks import Baseline
from components.model.tasks.text_classification import Loss, baselines, label_indexes, numbers, scored, single, weights_in_order
from components.model.tasks.text_classification.tables import by_number

_WHY = "ordinal levels are not trained with a softmax"


class Kind(single.Kind):
    """One of K ordered levels."""

    classes = False
    scored = True
    ordered = True
    validation_metrics = ("quadratic_weighted_kappa", "neg_mae", "accuracy", "spearman")
    test_metrics: Mapping[str, Metric] = {
        "quadratic_weighted_kappa": numbers.KAPPA,
        "neg_mae": numbers.NEG_MAE,
        "accuracy": mean("right", "share of the rows with the expected level"),
        "spearman": numbers.SPEARMAN,
    }
    baselines = ("median", "tfidf", "probe")
    unsupported_settings: Mapping[str, str] = {
        "label_smoothing": _WHY,
        "r_drop": _WHY,
        "calibration": _WHY,
        "class_biases": _WHY,
        "contrastive_start": "ordinal levels differ by degrees, and it distinguishes only equal and different labels",
    }

    def label_of(self, cell: str) -> str:
        """Return the level of a cell."""
        if not self.options.levels:
            return numbers.text(numbers.parse(cell))
        if (level := canonical_label(cell)) not in self.options.levels:
            raise ValueError("label is not in task_options.levels")
        return level

    def labels_of(self, rows: pd.DataFrame) -> tuple[str, ...]:
        """Return the levels from lowest to highest, from the options or else the numbers in the rows."""
        return self.options.levels or tuple(sorted(set(rows["label"]), key=float))

    def outputs(self, spec: ModelSpec) -> Mapping[str, Any]:
        """Return the names of K - 1 outputs."""
        return label_settings([f"above {level}" for level in spec.labels[:-1]]) | {"problem_type": None}

    def loss(self, spec: ModelSpec, smoothing: float) -> Loss | None:
        """Return the CORN loss: the mean binary cross-entropy of each threshold over the rows above the previous one."""
        import torch

        level_weights = weights_in_order(spec)

        def loss(logits: Any, labels: Any) -> Any:
            thresholds = torch.arange(logits.shape[1], device=logits.device)
            used, above = labels[:, None] >= thresholds, (labels[:, None] > thresholds).float()
            weight = used.float() if level_weights is None else used * torch.tensor(level_weights, device=logits.device)[labels][:, None]
            total = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), above, weight=weight, reduction="sum")
            return total / used.sum()

        return loss

    def items(self, spec: ModelSpec) -> Callable[[Any], float]:
        """Return a function that counts the thresholds in the loss of a batch: those up to a row's level and the next one."""
        return lambda batch: float((batch["labels"] + 1).clamp(max=len(spec.labels) - 1).sum())

    def fit_head(self, features: FrozenFeatures, spec: ModelSpec, metric: str) -> linear_probe.LinearHead | None:
        """Return the head of one logistic regression per threshold, over the rows above the previous one, as in `loss`."""
        given, levels = weights_in_order(spec), len(spec.labels)

        def cases(targets: npt.NDArray[Any], weighting: str) -> tuple[npt.NDArray[Any], Floats]:
            counts = np.maximum(np.bincount(targets, minlength=levels), 1)
            weights = {"none": np.ones(levels), "balanced": len(targets) / (levels * counts), "given": np.array(given or [])}[weighting]
            thresholds = np.arange(levels - 1)
            return targets[:, None] > thresholds, (targets[:, None] >= thresholds) * weights[targets][:, None]

        return self.fitted(features, spec, metric, linear_probe.logistic(cases), *linear_probe.weightings(given), stratify=True)

    def scores(self, logits: Any, spec: ModelSpec) -> Any:
        """Return the probability of each level."""
        import torch

        above = logits.sigmoid().cumprod(dim=-1)
        ones, zeros = torch.ones_like(above[:, :1]), torch.zeros_like(above[:, :1])
        return torch.cat([ones, above], dim=-1) - torch.cat([above, zeros], dim=-1)

    def answers(self, scores: Floats, spec: ModelSpec) -> ModelOutput:
        """Return the median level."""
        exceeded = 1 - np.cumsum(scores, axis=1)[:, :-1] > 0.5
        return scored([spec.labels[index] for index in exceeded.sum(axis=1)], scores, spec.labels)

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Compute the validation metrics."""
        import torch

        scores = self.scores(torch.from_numpy(np.asarray(outputs, dtype=np.float64)), spec).numpy()
        statistics = self.statistics([spec.labels[int(index)] for index in expected], self.answers(scores, spec).predicted)
        return {name: self.test_metrics[name].of(statistics) for name in self.validation_metrics}

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return the statistics of `numbers.sums` for the levels, and `right` (1 for a correct row)."""
        return {**super().statistics(expected, predicted), **numbers.sums(self._numbers(expected), self._numbers(predicted))}

    def fit_baselines(self, train: pd.DataFrame, spec: ModelSpec, base: Path) -> Mapping[str, Baseline]:
        """Predict the median level, the level nearest to TF-IDF with ridge regression (rows may be weighted), and a linear probe."""
        labels, cells = spec.labels, train["label"].tolist()
        indexes = np.array(label_indexes(cells, labels), dtype=np.int64)
        counts = np.bincount(indexes, minlength=len(labels))
        middle, tfidf = labels[int(np.median(indexes))], baselines.TfIdf.fit(train, self.options.pair)

        def median(rows: pd.DataFrame) -> ModelOutput:
            return scored([middle] * len(rows), np.tile(counts / counts.sum(), (len(rows), 1)), labels)

        def nearest(numbers: Floats) -> Ints:
            return np.clip(np.rint(numbers), 0, len(labels) - 1).astype(np.int64)

        def score(numbers: Floats, rows: Ints) -> float:
            statistics = self.statistics([cells[row] for row in rows], [labels[index] for index in nearest(numbers)])
            return self.test_metrics[self.validation_metrics[0]].of(statistics)

        if tfidf is None:
            return {"median": median, "tfidf": median, "probe": self.probe(train, spec, base, median)}
        weights = {"none": None, "balanced": len(indexes) / (np.count_nonzero(counts) * counts[indexes])}
        folds = make_folds(train["group"].tolist(), cells)
        predict = baselines.regressor(tfidf, indexes.astype(np.float64), folds, score, weights)

        def level(rows: pd.DataFrame) -> ModelOutput:
            answers = nearest(predict(rows))
            return scored([labels[index] for index in answers], np.eye(len(labels))[answers], labels)

        return {"median": median, "tfidf": level, "probe": self.probe(train, spec, base, level)}

    def tables(self, rows: pd.DataFrame, predictions: Predictions) -> tuple[ReportTable, ...]:
        """Return the mean answer and error per level."""
        expected, predicted = self._numbers(predictions.expected.tolist()), self._numbers(predictions.predicted.tolist())
        parts = [(level, predictions.expected == level) for level in self.labels_of(rows)]
        return (by_number("Levels, from the lowest", parts, expected, predicted),)

    def _numbers(self, levels: Sequence[str]) -> Floats:
        indexes = {level: float(index) for index, level in enumerate(self.options.levels)}
        return np.array([indexes[level] if indexes else float(level) for level in levels], dtype=np.float64)
