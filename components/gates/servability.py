"""Servability: does the registered version answer behind the scoring server as it was evaluated, and refuse what is no request?"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from components.artifacts.predictions import Predictions, answer_distance
from components.artifacts.served_answers import ServedAnswers
from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Outcome, Role
from components.gates.support.evidence import Evidence, GateSection

SHOWN = 20


class Params(GateSection):
    """How closely the served version must repeat the evaluated answers."""

    role: Role = Field(Role.REQUIRED, description="required | blocking | informational | off")
    rows: int = Field(200, ge=0, description="test rows to ask the scoring server, evenly spread; 0: all of them")
    # Serving computes in float32 and in batches of other lengths than evaluation did: below 1e-6 on one CPU; bfloat16 or another
    # machine may differ by more, another model or another preprocessing differs by far more.
    tolerance: float = Field(1e-3, gt=0, lt=0.5, description="largest difference of a probability or number between evaluated and served")
    max_seconds: float = Field(180, gt=0, description="for the server to start, and again for all requests")


class _Compared(NamedTuple):
    """Evaluated and served answers to the same rows: the largest difference of a probability, and whether the answer counts as the same."""

    ids: list[str]
    evaluated: list[str]
    served: list[str]
    difference: npt.NDArray[np.float64]
    differs: npt.NDArray[np.bool_]


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS when every answer is the evaluated one and every malformed request gets a 4xx; FAIL else, as it is counted, not estimated."""
    served = evidence.served
    if served is None:
        return _open("no scoring server was asked", "`retune judge`, which asks it")
    if served.fault is not None:
        reason = f"{served.version} was not served: {served.fault}"
        if served.outside:
            return _open(reason, "another attempt: `retune run` or `retune judge`").model_copy(update={"may_pass": True})
        return _result(Outcome.FAIL, reason, served)
    compared = _compare(evidence.candidate, served, params.tolerance)
    if isinstance(compared, str):
        return _open(compared, "`retune judge`, which asks it anew")
    if faults := _faults(served, compared, params):
        return _result(Outcome.FAIL, "; ".join(faults), served, compared, params.tolerance)
    if not compared.ids or not served.malformed:
        return _open("no test row, or no malformed request, was sent to the scoring server", "gates.servability.rows above 0")
    reason = (
        f"{len(compared.ids)} served answers are the evaluated ones (largest difference {np.max(compared.difference):.1e}, "
        f"gates.servability.tolerance {params.tolerance:g}), and {len(served.malformed)} malformed requests were refused"
    )
    return _result(Outcome.PASS, reason, served, compared, params.tolerance)


def _faults(served: ServedAnswers, compared: _Compared, params: Params) -> list[str]:
    """Say in how many ways the served version is not the evaluated one, or not one to be served."""
    faults = []
    if differing := int(compared.differs.sum()):
        setting = f"gates.servability.tolerance {params.tolerance:g}"
        worst = float(np.max(compared.difference))
        faults.append(
            f"{differing} of {len(compared.ids)} served answers differ from the evaluated ones (a probability by {worst:.3g}; {setting})"
        )
    if served.refused:
        faults.append(f"{len(served.refused)} good requests were not answered, first {served.refused[0]}")
    if broken := _broken(served):
        faults.append(f"malformed requests are not refused with a 4xx: {', '.join(broken)}")
    return faults


def _compare(candidate: Predictions, served: ServedAnswers, tolerance: float) -> _Compared | str:
    """Return evaluated and served answers row by row, or why they are not of the same rows."""
    place = {str(name): number for number, name in enumerate(candidate.ids)}
    if strange := [one.id for one in served.answers if one.id not in place]:
        return f"the server was asked other rows than the test set's ({len(strange)}, first {strange[0]!r})"
    if not candidate.labels:
        return _compare_texts(candidate, served, [place[one.id] for one in served.answers], tolerance)
    places = np.array([place[one.id] for one in served.answers], dtype=np.int64)
    wanted = candidate.probabilities[places]
    found = np.array([[one.probabilities.get(label, np.nan) for label in candidate.labels] for one in served.answers])
    difference = np.abs(found.reshape(wanted.shape) - wanted)
    difference = np.where(np.isnan(difference), np.inf, difference).max(axis=1, initial=0.0)
    top = np.sort(wanted, axis=1)
    clear = top[:, -1] - top[:, -2] > 2 * tolerance if len(candidate.labels) > 1 else np.ones(len(top), dtype=bool)
    labels = np.array([one.label for one in served.answers], dtype=np.str_)
    evaluated = candidate.predicted[places]
    others = np.array([set(one.probabilities) != set(candidate.labels) for one in served.answers], dtype=bool)
    differs = (difference > tolerance) | (clear & (labels != evaluated)) | others
    return _Compared([one.id for one in served.answers], evaluated.tolist(), labels.tolist(), difference, differs)


def _compare_texts(candidate: Predictions, served: ServedAnswers, places: list[int], tolerance: float) -> _Compared:
    """Return answers that are no classes: equal texts are the same, and JSON numbers within the tolerance."""
    evaluated, found = [str(candidate.predicted[at]) for at in places], [one.label for one in served.answers]
    difference = np.array([answer_distance(one, other) for one, other in zip(evaluated, found, strict=True)], dtype=np.float64)
    return _Compared([one.id for one in served.answers], evaluated, found, difference, difference > tolerance)


def _broken(served: ServedAnswers) -> list[str]:
    """Say which malformed requests got something else than a 4xx."""
    return [
        f"{name!r} got {status if status is not None else 'no answer'}"
        for name, status in served.malformed.items()
        if status is None or not 400 <= status < 500
    ]


def _open(reason: str, change: str) -> GateResult:
    return GateResult(gate="servability", outcome=Outcome.INCONCLUSIVE, reason=reason, change=change)


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
        change="a version whose served answers are the evaluated ones" if outcome is Outcome.FAIL else None,
        notes=(f"the scoring server was ready after {served.seconds:.1f} s",) if served.seconds else (),
        tables=tuple(_tables(served, compared)),
    )


def _tables(served: ServedAnswers, compared: _Compared | None) -> list[ReportTable]:
    tables = []
    if served.malformed:
        rows = tuple(served.malformed.items())
        tables.append(ReportTable(title="Malformed requests", columns=("request", "status"), rows=rows))
    if compared is not None and compared.differs.any():
        places = np.flatnonzero(compared.differs)[:SHOWN]
        different = [
            (compared.ids[at], compared.evaluated[at], compared.served[at], float(d) if np.isfinite(d := compared.difference[at]) else None)
            for at in places
        ]
        columns = ("id", "evaluated", "served", "difference of a probability")
        tables.append(ReportTable(title="Answers that differ", columns=columns, rows=tuple(different)))
    return tables
