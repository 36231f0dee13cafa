"""Servability: the served version repeats the evaluated answers and rejects malformed requests."""

from typing import NamedTuple

import numpy as np
from pydantic import Field

from components.artifacts.predictions import Predictions, answer_distance
from components.artifacts.served_answers import ServedAnswers
from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Outcome, Role
from components.gates.support import ROLE, Evidence, GateSection, Need, inconclusive
from components.gates.support.evidence_settings import ServedSettings
from components.stats.units import Bools, Floats

NEEDS: frozenset[Need] = frozenset({"served"})
SHOWN = 20


class Params(ServedSettings, GateSection):
    """Number of requests, and the tolerance of served answers."""

    role: Role = Field(Role.REQUIRED, description=ROLE)
    # Serving uses float32 and other batch lengths than evaluation: below 1e-6 on one CPU. bfloat16 or other hardware may differ by
    # more; another model or other preprocessing differs by far more.
    tolerance: float = Field(
        1e-3, gt=0, lt=0.5, description="allowed difference of a probability or number between evaluated and served answers"
    )


class _Compared(NamedTuple):
    """Evaluated and served answers to the same rows: the largest difference of a probability, and whether the answers differ."""

    ids: list[str]
    evaluated: list[str]
    served: list[str]
    difference: Floats
    differs: Bools


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS if every answer is the evaluated one and every malformed request gets a 4xx, else FAIL (counted, not estimated)."""
    served = evidence.served
    if served is None:
        return inconclusive("servability", "no request was sent to a scoring server", change="`retune judge --again`")
    if served.fault is not None:
        reason = f"{served.version} could not be served: {served.fault}"
        if served.outside:
            return inconclusive("servability", reason, change="another attempt: `retune run` or `retune judge`", may_pass=True)
        return _result(Outcome.FAIL, reason, served)
    compared = _compare(evidence.candidate, served, params.tolerance)
    if isinstance(compared, str):
        return inconclusive("servability", compared, change="`retune judge --again`")
    if faults := _faults(served, compared, params):
        return _result(Outcome.FAIL, "; ".join(faults), served, compared, params.tolerance)
    if not compared.ids or not served.malformed:
        reason = "no test row, or no malformed request, was sent to the scoring server"
        return inconclusive("servability", reason, change="`retune judge --again`")
    reason = (
        f"{len(compared.ids)} served answers are the evaluated ones (largest difference {np.max(compared.difference):.1e}, "
        f"gates.servability.tolerance {params.tolerance:g}), and {len(served.malformed)} malformed requests were rejected"
    )
    return _result(Outcome.PASS, reason, served, compared, params.tolerance)


def _faults(served: ServedAnswers, compared: _Compared, params: Params) -> list[str]:
    """Return the differences between served and evaluated version, and failed requests."""
    faults = []
    if differing := int(compared.differs.sum()):
        setting = f"gates.servability.tolerance {params.tolerance:g}"
        worst = float(np.max(compared.difference))
        faults.append(
            f"{differing} of {len(compared.ids)} served answers differ from the evaluated ones (a probability by {worst:.3g}; {setting})"
        )
    if served.refused:
        faults.append(f"{len(served.refused)} valid requests were not answered, first {served.refused[0]}")
    if accepted := _accepted(served):
        faults.append(f"malformed requests are not rejected with a 4xx: {', '.join(accepted)}")
    return faults


def _compare(candidate: Predictions, served: ServedAnswers, tolerance: float) -> _Compared | str:
    """Return evaluated and served answers row by row, or why their rows differ."""
    index = {str(name): number for number, name in enumerate(candidate.ids)}
    if unknown := [answer.id for answer in served.answers if answer.id not in index]:
        return f"the server answered rows that are not in the test set ({len(unknown)}, first {unknown[0]!r})"
    if not candidate.labels:
        return _compare_texts(candidate, served, [index[answer.id] for answer in served.answers], tolerance)
    rows = np.array([index[answer.id] for answer in served.answers], dtype=np.int64)
    expected = candidate.probabilities[rows]
    actual = np.array([[answer.probabilities.get(label, np.nan) for label in candidate.labels] for answer in served.answers])
    difference = np.abs(actual.reshape(expected.shape) - expected)
    difference = np.where(np.isnan(difference), np.inf, difference).max(axis=1, initial=0.0)
    top = np.sort(expected, axis=1)
    clear = top[:, -1] - top[:, -2] > 2 * tolerance if len(candidate.labels) > 1 else np.ones(len(top), dtype=bool)
    labels = np.array([answer.label for answer in served.answers], dtype=np.str_)
    evaluated = candidate.predicted[rows]
    other_labels = np.array([set(answer.probabilities) != set(candidate.labels) for answer in served.answers], dtype=bool)
    differs = (difference > tolerance) | (clear & (labels != evaluated)) | other_labels
    return _Compared([answer.id for answer in served.answers], evaluated.tolist(), labels.tolist(), difference, differs)


def _compare_texts(candidate: Predictions, served: ServedAnswers, rows: list[int], tolerance: float) -> _Compared:
    """Compare answers without classes: equal texts are the same, and so are JSON numbers within the tolerance."""
    evaluated, actual = [str(candidate.predicted[row]) for row in rows], [answer.label for answer in served.answers]
    difference = np.array([answer_distance(*pair) for pair in zip(evaluated, actual, strict=True)], dtype=np.float64)
    return _Compared([answer.id for answer in served.answers], evaluated, actual, difference, difference > tolerance)


def _accepted(served: ServedAnswers) -> list[str]:
    return [
        f"{name!r} got {status if status is not None else 'no answer'}"
        for name, status in served.malformed.items()
        if status is None or not 400 <= status < 500
    ]


def _result(
    outcome: Outcome, reason: str, served: ServedAnswers, compared: _Compared | None = None, tolerance: float | None = None
) -> GateResult:
    worst = float(np.max(compared.difference)) if compared is not None and compared.ids else None
    return GateResult(
        gate="servability",
        outcome=outcome,
        reason=reason,
        metric="largest difference of a probability",
        estimate=worst if worst is not None and np.isfinite(worst) else None,
        threshold=tolerance,
        n=len(served.answers),
        method="counted: every answer of the scoring server against the evaluated one, by row id",
        change="a version whose served answers equal the evaluated ones" if outcome is Outcome.FAIL else None,
        notes=(f"the scoring server was ready after {served.seconds:.1f} s",) if served.seconds else (),
        tables=tuple(_tables(served, compared)),
    )


def _tables(served: ServedAnswers, compared: _Compared | None) -> list[ReportTable]:
    tables = []
    if served.malformed:
        rows = tuple(served.malformed.items())
        tables.append(ReportTable(title="Malformed requests", columns=("request", "status"), rows=rows))
    if compared is not None and compared.differs.any():
        finite = np.where(np.isfinite(compared.difference), compared.difference, np.nan).tolist()
        different = [
            (compared.ids[row], compared.evaluated[row], compared.served[row], None if np.isnan(finite[row]) else finite[row])
            for row in np.flatnonzero(compared.differs)[:SHOWN]
        ]
        columns = ("id", "evaluated", "served", "difference of a probability")
        tables.append(ReportTable(title="Answers that differ", columns=columns, rows=tuple(different)))
    return tables
