"""Predictions with sums per row, for metrics that are functions of sums, such as entity F1."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from components.artifacts.predictions import Predictions
from components.gates.support import Evidence, ReferenceModel
from components.model.support.metrics import Metric, f1
from components.stats.metric_sets import MetricSet

ENTITY_F1 = Metric(("hits", "predicted", "expected"), f1, "entities")


def predictions(groups: Sequence[Any] | np.ndarray, **measured: np.ndarray) -> Predictions:
    """Return predictions without labels, with the sums `measured` of each row."""
    n = len(groups)
    ids = np.array([f"r{row:05d}" for row in range(n)])
    empty = np.array([""] * n)
    return Predictions(ids, np.asarray(groups).astype(np.str_), empty, empty, np.zeros((n, 0)), (), {"rows": np.ones(n), **measured})


def documents(generator: np.random.Generator, count: int, recall: float, precision: float, spread: float) -> dict[str, np.ndarray]:
    """Return entity counts of `count` documents; recall varies between documents, so that a document is a unit."""
    expected = generator.poisson(4, count) + 1
    own = np.clip(recall + spread * generator.standard_normal(count), 0, 1)
    hits = generator.binomial(expected, own)
    wrong = generator.poisson(4 * recall * (1 - precision) / precision, count)
    return {"hits": hits.astype(float), "predicted": (hits + wrong).astype(float), "expected": expected.astype(float)}


def entity_evidence(count: int = 400, seed: int = 1, **fields: Any) -> Evidence:
    """Return the evidence of a candidate whose baseline and champions have equal predictions."""
    statistics = documents(np.random.default_rng(seed), count, 0.7, 0.8, 0.2)
    candidate, other = predictions(np.arange(count), **statistics), predictions(np.arange(count), **statistics)
    metric_set = MetricSet.from_predictions(candidate, {"entity_f1": ENTITY_F1}, lambda predictions: predictions.measured)
    return Evidence(
        candidate,
        {"tfidf": other},
        ReferenceModel("4", other),
        10,
        best_champion=ReferenceModel("3", other),
        metric_set=metric_set,
        candidate_number=1,
        **fields,
    )
