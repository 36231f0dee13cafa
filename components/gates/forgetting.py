"""What was once learnt: the candidate against the champion on the test sets of earlier snapshots and on regression sets."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from components.artifacts.metrics import Estimate
from components.artifacts.past_test_set import PastTestSet
from components.artifacts.predictions import Predictions
from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Hypothesis, Outcome
from components.gates.support.evidence import Evidence, GateSection, hypothesis, interval, result
from components.stats import Units, mean
from components.stats.units import jackknife_variance, symmetric

Floats = npt.NDArray[np.float64]


class Params(GateSection):
    """The earlier test sets on which the candidate must not be worse than the champion."""

    last: int = Field(5, ge=0, le=50, description="test sets of earlier snapshots, the newest first; 0: none")
    sets: tuple[str, ...] = Field((), description="paths of regression sets, tables with text and label")
    margin: float = Field(0.03, gt=0, description="of accuracy, or the task's first measure: what is proven to be within it cannot reject")


@dataclass(frozen=True)
class _Compared:
    """One earlier test set: accuracies, the paired difference, and the p that the candidate is not worse; 1 within the margin."""

    name: str
    rows: int
    left_out: int
    mine: float
    theirs: float
    estimate: Estimate
    p: float
    gains: Floats | None
    groups: npt.NDArray[np.str_]


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS when every earlier set is within the margin, else INCONCLUSIVE; it fails by being worse on one of them."""
    if not params.last and not params.sets and not evidence.earlier:
        return GateResult.not_asked("forgetting", "gates.forgetting.last 0 and no sets")
    faults = tuple(f"{one.name}: {fault}" for one in evidence.earlier if (fault := _fault(one)))
    if evidence.champion is None or evidence.unscorable:
        known: dict[str, Any] = {"notes": faults, "tables": _alone(evidence)}
        if evidence.unscorable:
            return GateResult(gate="forgetting", outcome=Outcome.INCONCLUSIVE, reason=evidence.unscorable, **known)
        why = "there is no champion yet, so there is none that has learnt what could be forgotten"
        return GateResult.not_asked("forgetting", why, **known)
    if not evidence.earlier:
        return GateResult.not_asked("forgetting", "there is no earlier test set yet")
    called = f"champion {evidence.champion.called}"
    compared = [_compare(evidence, one.name, mine, theirs, one.left_out, params) for one, mine, theirs in _answered(evidence)]
    if not compared:
        reason = f"no earlier test set can be compared: {'; '.join(faults) or 'the champion answers none'}"
        return GateResult(gate="forgetting", outcome=Outcome.INCONCLUSIVE, reason=reason, notes=faults, change=_MEND)
    missing = faults or tuple(f"{one.name}: {called} has no answers on it" for one in evidence.earlier if one.champion is None)
    return _decided(evidence, params, called, compared, missing)


_MEND = "`dvc pull`, then `retune judge --again`, or gates.forgetting.last and sets without what is missing"


def _fault(one: PastTestSet) -> str | None:
    if one.fault:
        return one.fault
    if one.candidate is None or not len(one.candidate.ids):
        return f"no row is left to test on, {one.left_out:,} were trained on or have an unknown label"
    if one.champion is not None and one.champion.ids.tolist() != one.candidate.ids.tolist():
        return "the two models did not answer the same rows in the same order"
    return None


def _answered(evidence: Evidence) -> list[tuple[PastTestSet, Predictions, Predictions]]:
    """Return the sets that both models answered, on the rows whose label both know."""
    found = []
    for one in evidence.earlier:
        if _fault(one) or one.candidate is None or one.champion is None:
            continue
        if not evidence.classes:
            found.append((one, one.candidate, one.champion))
            continue
        known = np.isin(one.candidate.expected, one.champion.labels) & np.isin(one.candidate.expected, one.candidate.labels)
        if known.any():
            found.append((one, one.candidate.take(known), one.champion.take(known)))
    return found


def _compare(evidence: Evidence, name: str, mine: Predictions, theirs: Predictions, left_out: int, params: Params) -> _Compared:
    yardstick, metric = evidence.yardstick.on(mine), evidence.main
    estimate = yardstick.difference(metric, mine, theirs, evidence.confidence)
    within = estimate.low > -params.margin and not estimate.doubt
    right, others = (np.asarray(one.predicted == mine.expected) for one in (mine, theirs))
    return _Compared(
        name=name,
        rows=len(mine.ids),
        left_out=left_out,
        mine=yardstick.score(metric, mine).value,
        theirs=yardstick.score(metric, theirs).value,
        estimate=estimate,
        p=1.0 if within else yardstick.difference_below(metric, mine, theirs),
        gains=right.astype(np.float64) - others.astype(np.float64) if evidence.classes else None,
        groups=mine.groups,
    )


def backward_transfer(gains: list[Floats], groups: list[npt.NDArray[np.str_]], confidence: float) -> Estimate:
    """Return the mean over the sets of each set's mean gain, with the delete-one-group jackknife's interval over all of them.

    Successive test sets share most of their rows: a group, by its name, is left out of every set at once. Lopez-Paz and Ranzato
    (2017, NeurIPS 30:6467) define the transfer; here it is relative to the champion.
    """
    units = Units.from_groups(np.concatenate(groups))
    sets = np.repeat(np.arange(len(gains)), [len(one) for one in gains])
    values = np.concatenate(gains)
    cell = sets * units.count + units.index
    sums, sizes = (
        np.bincount(cell, weights=weights, minlength=len(gains) * units.count).reshape(len(gains), -1)
        for weights in (values, np.ones(len(values)))
    )
    means = np.array([one.mean() for one in gains])
    rest = sizes.sum(axis=1, keepdims=True) - sizes
    total = sums.sum(axis=1, keepdims=True) - sums
    left_out = np.divide(total, rest, out=np.repeat(means[:, None], units.count, axis=1), where=rest > 0).mean(axis=0)
    value, error = float(means.mean()), float(np.sqrt(jackknife_variance(float(means.mean()), left_out)))
    if error < 1e-12:  # nothing varies: bounded as a mean of as many units is
        pooled = mean(values, units, (-1.0, 1.0), confidence)
        ends = {"low": min(pooled.low, value), "high": max(pooled.high, value)}
        return pooled.model_copy(update={"value": value, "doubt": _doubt(units), **ends})
    rest_of_it = {"n": units.count, "method": "delete-one-group jackknife over all sets", "confidence": confidence, "doubt": _doubt(units)}
    return symmetric(value, units.critical(confidence) * error, (-1.0, 1.0), **rest_of_it)


def _doubt(units: Units) -> str | None:
    return units.doubt if units.count > 1 else "a single row or group has no variation"


def _decided(evidence: Evidence, params: Params, called: str, compared: list[_Compared], missing: tuple[str, ...]) -> GateResult:
    """Put the compared sets into a result: the mean over all of them, and one way to fail for each."""
    metric, transfer = evidence.main, _transfer(evidence, compared)
    unsettled = [one for one in compared if one.estimate.doubt or one.estimate.low <= -params.margin]
    margin, sets = f"gates.forgetting.margin {params.margin:g}", "set" if len(compared) == 1 else "sets"
    worst = min(unsettled or compared, key=lambda one: one.estimate.low)
    if unsettled:
        why = worst.estimate.doubt or f"{metric} difference {worst.estimate.value:+.3f} ({interval(worst.estimate, signed=True)})"
        said = f"{worst.name} does not settle {margin}: {why}"
    else:
        said = f"on {len(compared)} earlier test {sets} the {metric} is within {margin} of that of {called}"
    outcome = Outcome.INCONCLUSIVE if unsettled or missing else Outcome.PASS
    shown = transfer or worst.estimate
    overall = f"backward transfer {shown.value:+.3f} ({interval(shown, signed=True)}) over {len(compared)} earlier test {sets}"
    return result(
        "forgetting",
        outcome,
        "; ".join([*(f"missing: {one}" for one in missing), said]),
        f"backward transfer of {metric}" if transfer else f"{metric} on {worst.name}",
        shown,
        -params.margin,
        evidence,
        change=_MEND if missing else f"PASS with a margin above {max(-min(one.estimate.low for one in compared), 0):.3f}",
        hypotheses=tuple(_worse(one, metric, called) for one in compared),
        notes=(overall,) if transfer else (),
        tables=(_table(evidence, compared),),
    )


def _transfer(evidence: Evidence, compared: list[_Compared]) -> Estimate | None:
    """Return the backward transfer of accuracy; None where rows are not right or wrong."""
    gains = [one.gains for one in compared if one.gains is not None]
    return backward_transfer(gains, [one.groups for one in compared], evidence.confidence) if len(gains) == len(compared) else None


def _worse(one: _Compared, metric: str, called: str) -> Hypothesis:
    lost = f"{-one.estimate.value:.3f} ({interval(one.estimate, signed=True)})"
    says = f"{metric} on {one.name} is worse than that of {called} by {lost}"
    return hypothesis(f"{metric} on {one.name} worse than {called}", says, one.p, metric, one.estimate)


def _table(evidence: Evidence, compared: list[_Compared]) -> ReportTable:
    columns = ("earlier test set", "rows", "left out", "candidate", "champion", "difference", "low", "high", "p")
    rows = tuple(
        (
            *(one.name, one.rows, one.left_out),
            *(round(each, 4) for each in (one.mine, one.theirs, one.estimate.value, one.estimate.low, one.estimate.high)),
            float(f"{one.p:.4g}"),
        )
        for one in compared
    )
    return ReportTable(
        title=f"{evidence.main.capitalize()} on earlier test sets, {evidence.confidence * 100:.0f} % intervals", columns=columns, rows=rows
    )


def _alone(evidence: Evidence) -> tuple[ReportTable, ...]:
    known = [(one, one.candidate) for one in evidence.earlier if one.candidate is not None and len(one.candidate.ids)]
    scores = [evidence.yardstick.on(own).score(evidence.main, own).value for _, own in known]
    rows = tuple((one.name, len(own.ids), one.left_out, round(value, 4)) for (one, own), value in zip(known, scores, strict=True))
    columns = ("earlier test set", "rows", "left out", "candidate")
    return (ReportTable(title=f"{evidence.main.capitalize()} on earlier test sets", columns=columns, rows=rows),) if rows else ()
