"""One of K levels in order: K - 1 logits, each the probability of being above a level given that one is above those below it.

CORN: Shi, Cao & Raschka, "Deep Neural Networks for Rank-Consistent Ordinal Regression Based On Conditional Probabilities" (2021). Products
of the conditional probabilities fall from level to level, so that no text is likelier above a high level than above a low one. The answer
is the median: as many levels up as are passed with a probability above one half.
Levels are named by the option `levels`, or are numbers; metrics then count in these numbers, otherwise in places, from 0.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from components.artifacts.predictions import ModelOutput, Predictions
from components.artifacts.table import ReportTable
from components.artifacts.training import ModelSpec
from components.core.text import canonical_label
from components.model.support.metrics import Metric, mean
from components.model.tasks.text_classification import numbers, weights
from components.model.tasks.text_classification.baselines import Features, regressed
from components.model.tasks.text_classification.kinds import Floats, Loss, scored
from components.model.tasks.text_classification.options import Options
from components.model.tasks.text_classification.single import fitted_weights, label_indexes, named
from components.model.tasks.text_classification.tables import by_number

_WHY = "its softmax is not how levels in order are learnt"


class Kind:
    """One of K levels in order."""

    classes = False
    one_answer = True
    scored = True
    ordered = True
    validation_metrics = ("quadratic_weighted_kappa", "neg_mae", "accuracy", "spearman")
    test_metrics: Mapping[str, Metric] = {
        "quadratic_weighted_kappa": numbers.KAPPA,
        "neg_mae": numbers.NEG_MAE,
        "accuracy": mean("right", "share of the rows with the expected level"),
        "spearman": numbers.SPEARMAN,
    }
    baselines = ("median", "tfidf")
    unsupported_settings: Mapping[str, str] = {
        "label_smoothing": _WHY,
        "r_drop": _WHY,
        "calibration": _WHY,
        "contrastive_start": "levels in order are more and less alike, and it knows only the same and another",
    }

    def __init__(self, options: Options) -> None:
        """Hold the options."""
        self._options = options

    def rename_labels(self, cell: str, rename: Callable[[str], str]) -> str:
        """Return the label's name."""
        return rename(cell)

    def label_of(self, cell: str) -> str:
        """Return the level in a cell."""
        if not self._options.levels:
            return numbers.text(numbers.parse(cell))
        if (level := canonical_label(cell)) not in self._options.levels:
            raise ValueError("label is not in task_options.levels")
        return level

    def labels_of(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the levels from the lowest to the highest: those of the options, or the numbers among the rows."""
        return self._options.levels or tuple(sorted(set(labels), key=float))

    def label_counts(self, labels: Sequence[str]) -> Mapping[str, int]:
        """Return the number of rows of each level."""
        return {str(label): int(count) for label, count in pd.Series(labels, dtype="str").value_counts().items()}

    def fit_options(self, labels: Sequence[str]) -> Mapping[str, Any]:
        """Return the weights of the levels, where they are asked for."""
        return fitted_weights(self._options, self.label_counts(labels))

    def targets(self, labels: Sequence[str], spec: ModelSpec) -> pa.Array:
        """Return each level's number."""
        return pa.array(label_indexes(labels, spec.labels), pa.int64())

    def outputs(self, spec: ModelSpec) -> Mapping[str, Any]:
        """Return the names of K - 1 outputs."""
        return named([f"above {level}" for level in spec.labels[:-1]]) | {"problem_type": None}

    def loss(self, spec: ModelSpec, smoothing: float) -> Loss | None:
        """Return CORN's loss."""
        return _corn(weights.in_order(spec.options.get("class_weights"), spec.labels))

    def scores(self, logits: Any, spec: ModelSpec) -> Any:
        """Return the probability of each level."""
        import torch

        above = logits.sigmoid().cumprod(dim=-1)
        ones, zeros = torch.ones_like(above[:, :1]), torch.zeros_like(above[:, :1])
        return torch.cat([ones, above], dim=-1) - torch.cat([above, zeros], dim=-1)

    def answers(self, scores: Floats, spec: ModelSpec) -> ModelOutput:
        """Return the median level."""
        passed = 1 - np.cumsum(scores, axis=1)[:, :-1] > 0.5
        return scored([spec.labels[place] for place in passed.sum(axis=1)], scores, spec.labels)

    def calibrate(self, scores: Floats, labels: Sequence[str], spec: ModelSpec) -> Mapping[str, Any]:
        """Return nothing."""
        return {}

    def validate(self, outputs: npt.NDArray[Any], expected: npt.NDArray[Any], spec: ModelSpec) -> Mapping[str, float]:
        """Return the metrics."""
        import torch

        scores = self.scores(torch.from_numpy(np.asarray(outputs, dtype=np.float64)), spec).numpy()
        statistics = self.statistics([spec.labels[int(place)] for place in expected], self.answers(scores, spec).predicted)
        return {name: self.test_metrics[name].of(statistics) for name in self.validation_metrics}

    def statistics(self, expected: Sequence[str], predicted: Sequence[str]) -> Mapping[str, Floats]:
        """Return the sums of `numbers.sums` over the levels' numbers, and `right`, 1 for a row with the expected level."""
        right = np.array([one == other for one, other in zip(expected, predicted, strict=True)], dtype=np.float64)
        return {**numbers.sums(self._numbers(expected), self._numbers(predicted)), "right": right}

    def predict_baselines(self, train: pd.DataFrame, spec: ModelSpec, rows: int, features: Features | None) -> Mapping[str, ModelOutput]:
        """Return the median level, and the level nearest to what TF-IDF with ridge regression says."""
        places = np.array(label_indexes(train["label"].tolist(), spec.labels), dtype=np.float64)
        shares = np.tile(np.bincount(places.astype(int), minlength=len(spec.labels)) / max(1, len(places)), (rows, 1))
        median = scored([spec.labels[int(np.median(places))]] * rows, shares, spec.labels)
        if features is None:
            return {"median": median, "tfidf": median}
        nearest = np.clip(np.rint(regressed(features, places)), 0, len(spec.labels) - 1).astype(int)
        return {
            "median": median,
            "tfidf": scored([spec.labels[place] for place in nearest], np.eye(len(spec.labels))[nearest], spec.labels),
        }

    def slices(self, labels: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """Return the expected level of each row."""
        return {"label": list(labels)}

    def tables(self, rows: pd.DataFrame, found: Predictions) -> tuple[ReportTable, ...]:
        """Return what is answered to each level, and how far off that is."""
        expected, predicted = self._numbers(found.expected.tolist()), self._numbers(found.predicted.tolist())
        parts = [(level, found.expected == level) for level in self.labels_of(found.expected.tolist())]
        return (by_number("Levels, from the lowest", parts, expected, predicted),)

    def _numbers(self, levels: Sequence[str]) -> Floats:
        place = {level: float(place) for place, level in enumerate(self._options.levels)}
        return np.array([place[level] if place else float(level) for level in levels], dtype=np.float64)


def asked(spec: ModelSpec) -> Callable[[Any], float]:
    """Return what counts the thresholds that CORN's loss of a batch is the mean of: those up to a row's level and the next."""
    return lambda batch: float((batch["labels"] + 1).clamp(max=len(spec.labels) - 1).sum())


def _corn(of_levels: Sequence[float] | None) -> Loss:
    """Return CORN's loss: binary cross-entropy, for each threshold over the rows that passed the one below, divided by their number."""
    import torch

    def loss(logits: Any, labels: Any) -> Any:
        thresholds = torch.arange(logits.shape[1], device=logits.device)
        asked, above = labels[:, None] >= thresholds, (labels[:, None] > thresholds).float()
        weight = asked.float() if of_levels is None else asked * torch.tensor(of_levels, device=logits.device)[labels][:, None]
        total = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), above, weight=weight, reduction="sum")
        return total / asked.sum()

    return loss
