"""Forgetting: candidate against champion on the test sets of earlier snapshots and on regression sets."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from components.artifacts.metrics import Estimate
from components.artifacts.past_test_set import PastTestSet
from components.artifacts.predictions import Predictions
from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Outcome, Remedy
from components.gates.support import Evidence, GateSection, Need, inconclusive, interval, result
from components.gates.support.evidence_settings import PastTestSettings
from components.gates.support.noninferiority import worse
from components.gates.support.remedies import margin_beyond
from components.stats.means import mean
from components.stats.units import Floats, Units, jackknife_variance, symmetric

NEEDS: frozenset[Need] = frozenset({"past_test_sets"})


class Params(PastTestSettings, GateSection):
    """Past test sets on which the candidate must not be worse than the champion."""

    margin: float = Field(
        0.03, gt=0, description="margin of accuracy, or of the task's first metric: a difference proven to be within it cannot reject"
    )


@dataclass(frozen=True)
class _PastComparison:
    """One past test set: both scores, the paired difference, and the p-value of "not worse"; 1 within the margin."""

    name: str
    rows: int
    left_out: int
    candidate: float
    champion: float
    estimate: Estimate
    p: float
    gains: Floats | None
    groups: npt.NDArray[np.str_]


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS if every past test set is within the margin, else INCONCLUSIVE; a worse score on one of them rejects."""
    if not params.last and not params.sets and not evidence.past_test_sets:
        return GateResult.not_applicable("forgetting", "gates.forgetting.last is 0 and sets is empty")
    faults = tuple(f"{past.name}: {fault}" for past in evidence.past_test_sets if (fault := _fault(past)))
    if evidence.champion is None or evidence.champion_fault:
        details: dict[str, Any] = {"notes": faults, "tables": _candidate_table(evidence)}
        if evidence.champion_fault:
            return inconclusive("forgetting", evidence.champion_fault, **details)
        return GateResult.not_applicable("forgetting", "there is no champion yet", **details)
    if not evidence.past_test_sets:
        return GateResult.not_applicable("forgetting", "there is no past test set yet")
    champion = f"champion {evidence.champion.display_name}"
    comparisons = [_compare(evidence, *answered, params) for answered in _answered(evidence)]
    if not comparisons:
        reason = f"no past test set can be compared: {'; '.join(faults) or 'the champion answers none'}"
        return inconclusive("forgetting", reason, notes=faults, change=_RESTORE)
    missing = faults or tuple(f"{past.name}: {champion} has no answers on it" for past in evidence.past_test_sets if past.champion is None)
    return _decide(evidence, params, champion, comparisons, missing)


_RESTORE = "`dvc pull`, then `retune judge --again`, or gates.forgetting.last and sets without the missing ones"


def _fault(past: PastTestSet) -> str | None:
    if past.fault:
        return past.fault
    if past.candidate is None or not len(past.candidate.ids):
        return f"no row remains: {past.left_out:,} are training rows or have an unknown label"
    if past.champion is not None and past.champion.ids.tolist() != past.candidate.ids.tolist():
        return "the two models did not answer the same rows in the same order"
    return None


def _answered(evidence: Evidence) -> Iterator[tuple[PastTestSet, Predictions, Predictions]]:
    """Yield the sets that both models answered, on the rows whose label both know."""
    for past in evidence.past_test_sets:
        if _fault(past) or past.candidate is None or past.champion is None:
            continue
        if not evidence.classes:
            yield past, past.candidate, past.champion
            continue
        expected = past.candidate.expected
        known = np.isin(expected, past.champion.labels) & np.isin(expected, past.candidate.labels)
        if known.any():
            yield past, past.candidate.take(known), past.champion.take(known)


def _compare(evidence: Evidence, past: PastTestSet, candidate: Predictions, champion: Predictions, params: Params) -> _PastComparison:
    metric_set, metric = evidence.metric_set.on(candidate), evidence.main_metric
    estimate = metric_set.difference(metric, candidate, champion, evidence.confidence)
    within = estimate.low > -params.margin and not estimate.doubt
    correct, champion_correct = (np.asarray(model.predicted == candidate.expected) for model in (candidate, champion))
    return _PastComparison(
        name=past.name,
        rows=len(candidate.ids),
        left_out=past.left_out,
        candidate=metric_set.score(metric, candidate).value,
        champion=metric_set.score(metric, champion).value,
        estimate=estimate,
        p=1.0 if within else metric_set.difference_below(metric, candidate, champion),
        gains=correct.astype(np.float64) - champion_correct.astype(np.float64) if evidence.classes else None,
        groups=candidate.groups,
    )


def backward_transfer(gains: list[Floats], groups: list[npt.NDArray[np.str_]], confidence: float) -> Estimate:
    """Return the mean of the sets' mean gains, with the interval of the delete-one-group jackknife over all sets.

    Successive test sets share most of their rows: a group, by its name, is left out of every set at once. Lopez-Paz and Ranzato
    (2017, NeurIPS 30:6467) define the transfer; here it is relative to the champion.
    """
    units = Units.from_groups(np.concatenate(groups))
    sets = np.repeat(np.arange(len(gains)), [len(gain) for gain in gains])
    values = np.concatenate(gains)
    cell = sets * units.count + units.index
    sums, sizes = (
        np.bincount(cell, weights=weights, minlength=len(gains) * units.count).reshape(len(gains), -1)
        for weights in (values, np.ones(len(values)))
    )
    means = np.array([gain.mean() for gain in gains])
    rest = sizes.sum(axis=1, keepdims=True) - sizes
    total = sums.sum(axis=1, keepdims=True) - sums
    left_out = np.divide(total, rest, out=np.repeat(means[:, None], units.count, axis=1), where=rest > 0).mean(axis=0)
    value, error = float(means.mean()), float(np.sqrt(jackknife_variance(float(means.mean()), left_out)))
    if error < 1e-12:  # no variation: use the bounds of a mean of as many units
        pooled = mean(values, units, (-1.0, 1.0), confidence)
        ends = {"low": min(pooled.low, value), "high": max(pooled.high, value)}
        return pooled.model_copy(update={"value": value, "doubt": _doubt(units), **ends})
    details = {"n": units.count, "method": "delete-one-group jackknife over all sets", "confidence": confidence, "doubt": _doubt(units)}
    return symmetric(value, units.critical(confidence) * error, (-1.0, 1.0), **details)


def _doubt(units: Units) -> str | None:
    return units.doubt if units.count > 1 else "a single row or group has no variation"


def _decide(evidence: Evidence, params: Params, champion: str, comparisons: list[_PastComparison], missing: tuple[str, ...]) -> GateResult:
    metric, transfer = evidence.main_metric, _transfer(evidence, comparisons)
    undecided = [each for each in comparisons if each.estimate.doubt or each.estimate.low <= -params.margin]
    margin, sets = f"gates.forgetting.margin {params.margin:g}", "set" if len(comparisons) == 1 else "sets"
    worst = min(undecided or comparisons, key=lambda each: each.estimate.low)
    if undecided:
        cause = worst.estimate.doubt or f"{metric} difference {worst.estimate.value:+.3f} ({interval(worst.estimate, signed=True)})"
        summary = f"{worst.name} is inconclusive for {margin}: {cause}"
    else:
        summary = f"on {len(comparisons)} past test {sets} the {metric} is within {margin} of that of {champion}"
    shown = transfer or worst.estimate
    overall = f"backward transfer {shown.value:+.3f} ({interval(shown, signed=True)}) over {len(comparisons)} past test {sets}"
    outcome = Outcome.INCONCLUSIVE if undecided or missing else Outcome.PASS
    reason = "; ".join([*(f"missing: {past}" for past in missing), summary])
    judged = f"backward transfer of {metric}" if transfer else f"{metric} on {worst.name}"
    hypotheses = tuple(worse(metric, champion, each.p, each.estimate, f" on {each.name}") for each in comparisons)
    remedy = Remedy(
        outcome=Outcome.PASS if undecided else Outcome.INCONCLUSIVE, settings={"margin": margin_beyond(worst.estimate, up=bool(undecided))}
    )
    change, remedies = (_RESTORE, ()) if missing else (None, (remedy,))
    details = {"remedies": remedies, "notes": (overall,) if transfer else (), "tables": (_table(evidence, comparisons),), "change": change}
    return result("forgetting", outcome, reason, judged, shown, -params.margin, evidence, hypotheses=hypotheses, **details)


def _transfer(evidence: Evidence, comparisons: list[_PastComparison]) -> Estimate | None:
    """Return the backward transfer of accuracy; None if answers are not correct or wrong."""
    gains = [comparison.gains for comparison in comparisons if comparison.gains is not None]
    if len(gains) != len(comparisons):
        return None
    return backward_transfer(gains, [comparison.groups for comparison in comparisons], evidence.confidence)


def _table(evidence: Evidence, comparisons: list[_PastComparison]) -> ReportTable:
    columns = ("past test set", "rows", "left out", "candidate", "champion", "difference", "low", "high", "p")
    rows = []
    for each in comparisons:
        scores = each.candidate, each.champion, each.estimate.value, each.estimate.low, each.estimate.high
        rows.append((each.name, each.rows, each.left_out, *(round(score, 4) for score in scores), float(f"{each.p:.4g}")))
    title = f"{evidence.main_metric.capitalize()} on past test sets, {evidence.confidence * 100:.0f} % intervals"
    return ReportTable(title=title, columns=columns, rows=tuple(rows))


def _candidate_table(evidence: Evidence) -> tuple[ReportTable, ...]:
    metric = evidence.main_metric
    rows = tuple(
        (past.name, len(answers.ids), past.left_out, round(evidence.metric_set.on(answers).score(metric, answers).value, 4))
        for past in evidence.past_test_sets
        if (answers := past.candidate) is not None and len(answers.ids)
    )
    columns = ("past test set", "rows", "left out", "candidate")
    return (ReportTable(title=f"{metric.capitalize()} on past test sets", columns=columns, rows=rows),) if rows else ()
