"""Test rows that a compared model has learnt, word for word or nearly: they leave every comparison, and are counted.

A comparison on such rows favours whoever learnt from them. All gates decide on the same rows, so that a row that one model has learnt is
used for none.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from components.gates.support.evidence import Evidence, ReferenceModel, TrainingRows
from components.gates.support.overlap import TestExposure, overlaps

LEARNT = "the rows learnt from"
"""What the candidate was trained and validated on."""


def rows_name(one: TrainingRows) -> str:
    """Return what reasons call the rows that a version learnt from."""
    return f"the rows that {one.called} learnt from"


def measure_exposure(rows: pd.DataFrame, train: pd.DataFrame | None, seen: Sequence[TrainingRows], threshold: float) -> TestExposure:
    """Hold the test `rows` against what each model has learnt; near copies have a similarity of `threshold` or more."""
    sides = {LEARNT: train} if train is not None else {}
    sides |= {rows_name(one): one.rows for one in seen if one.rows is not None}
    found = dict(zip(sides, overlaps(rows, list(sides.values()), threshold), strict=True))
    compared = [LEARNT, *(rows_name(one) for one in seen if one.compared)]
    ids = {pair.test_id for name in compared if name in found for pair in (*found[name].exact, *found[name].near)}
    return TestExposure(rows, found, np.array([str(name) not in ids for name in rows["id"]], dtype=np.bool_))


def without_learned_rows(evidence: Evidence, held: TestExposure) -> Evidence:
    """Return the evidence on the fresh rows alone; where there are none, on all rows and without anything to compare the candidate with."""
    evidence = replace(evidence, held=held)
    if held.fresh.all():
        return evidence
    if not held.fresh.any():
        fault = "every test row is one that a compared model has learnt"
        return replace(evidence, baselines={}, champion=_silenced(evidence.champion, fault), anchor=_silenced(evidence.anchor, fault))
    own = evidence.candidate.take(held.fresh)
    return replace(
        evidence,
        candidate=own,
        baselines={name: found.take(held.fresh) for name, found in evidence.baselines.items()},
        champion=_taken(evidence.champion, held.fresh),
        anchor=_taken(evidence.anchor, held.fresh),
        rows=held.usable,
        parts={kind: [value for value, fresh in zip(values, held.fresh, strict=True) if fresh] for kind, values in evidence.parts.items()},
        yardstick=evidence.yardstick.on(own),
    )


def _silenced(rival: ReferenceModel | None, fault: str) -> ReferenceModel | None:
    return rival if rival is None or rival.predictions is None else ReferenceModel(rival.version, None, fault)


def _taken(rival: ReferenceModel | None, rows: npt.NDArray[np.bool_]) -> ReferenceModel | None:
    if rival is None or rival.predictions is None:
        return rival
    return replace(rival, predictions=rival.predictions.take(rows), known=None if rival.known is None else rival.known[rows])
