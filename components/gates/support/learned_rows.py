"""Test rows that a compared model was trained on, exactly or nearly: they are counted, and excluded from every comparison.

A comparison on such rows favours the model that was trained on them. All gates decide on the same rows, so a row that one model was
trained on is used for no model.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.gates.support.evidence import Evidence, ReferenceModel, TrainingRows
from components.gates.support.overlap import TestExposure, overlaps

CANDIDATE_ROWS = "the training rows"
"""Name in messages of the rows that the candidate was trained and validated on."""


def rows_name(rows: TrainingRows) -> str:
    """Return the name in messages of a version's training rows."""
    return f"the training rows of {rows.display_name}"


def measure_exposure(rows: pd.DataFrame, train: pd.DataFrame | None, others: Sequence[TrainingRows], threshold: float) -> TestExposure:
    """Find the test `rows` in the training rows of each model; near copies have a similarity of at least `threshold`."""
    sources = {CANDIDATE_ROWS: train} if train is not None else {}
    sources |= {rows_name(other): other.rows for other in others if other.rows is not None}
    by_source = dict(zip(sources, overlaps(rows, list(sources.values()), threshold), strict=True))
    compared = [CANDIDATE_ROWS, *(rows_name(other) for other in others if other.compared)]
    ids = {pair.test_id for name in compared if name in by_source for pair in (*by_source[name].exact, *by_source[name].near)}
    return TestExposure(rows, by_source, np.array([str(name) not in ids for name in rows["id"]], dtype=np.bool_))


def without_learned_rows(evidence: Evidence, exposure: TestExposure) -> Evidence:
    """Return the evidence on the unseen rows only; if no row is unseen, on all rows and without any model to compare with."""
    evidence = replace(evidence, exposure=exposure)
    unseen = exposure.unseen
    if unseen.all():
        return evidence
    champion, best = evidence.champion, evidence.best_champion
    if not unseen.any():
        fault = "a compared model was trained on every test row"
        return replace(
            evidence, baselines={}, champion=_without_predictions(champion, fault), best_champion=_without_predictions(best, fault)
        )
    candidate = evidence.candidate.take(unseen)
    slices = {name: [value for value, keep in zip(values, unseen, strict=True) if keep] for name, values in evidence.task_slices.items()}
    return replace(
        evidence,
        candidate=candidate,
        baselines={name: predictions.take(unseen) for name, predictions in evidence.baselines.items()},
        champion=_take(champion, unseen),
        best_champion=_take(best, unseen),
        rows=exposure.comparable,
        task_slices=slices,
        metric_set=evidence.metric_set.on(candidate),
    )


def _without_predictions(model: ReferenceModel | None, fault: str) -> ReferenceModel | None:
    return model if model is None or model.predictions is None else ReferenceModel(model.version, None, fault)


def _take(model: ReferenceModel | None, rows: npt.NDArray[np.bool_]) -> ReferenceModel | None:
    if model is None or model.predictions is None:
        return model
    return replace(model, predictions=model.predictions.take(rows), known_rows=None if model.known_rows is None else model.known_rows[rows])
