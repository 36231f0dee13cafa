"""Probabilities that mean less than the champion's: Brier score or log-loss, row by row on the same test set."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from components.artifacts.metrics import Estimate
from components.artifacts.predictions import Predictions
from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Outcome
from components.gates.support.evidence import Evidence, GateSection, ReferenceModel, hypothesis, interval, result
from components.stats import Units, brier_terms, calibration_error, mean, mean_below, mean_difference, reliability
from components.stats.scores import encode

Floats = npt.NDArray[np.float64]

CLIP = 1e-6
"""Log-loss takes no probability to be smaller, so that one certain mistake costs 13.8 and not everything."""
_BOUNDS = {"brier": (0.0, 2.0), "log_loss": (0.0, float(-np.log(CLIP)))}


class Params(GateSection):
    """How much worse than the champion's the candidate's probabilities may be."""

    metric: Literal["brier", "log_loss"] = Field("brier", description="brier (0 to 2) | log_loss (0 to 13.8, probabilities from 1e-6 on)")
    margin: float = Field(0.01, gt=0, le=1, description="in the metric's own unit, 0 is best: what a candidate may be worse by")


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS when the difference's interval is below the margin, else INCONCLUSIVE; it fails by being worse than the champion."""
    if not evidence.classes:
        return GateResult.not_asked("calibration", "the task has no probabilities of classes")
    notes, tables = _described(evidence)
    rival = evidence.champion
    fault = _fault("the candidate", evidence.candidate) or evidence.unscorable or _unusable(rival)
    if fault or rival is None or rival.predictions is None:
        if fault:
            return GateResult(gate="calibration", outcome=Outcome.INCONCLUSIVE, reason=fault, notes=notes, tables=tables)
        why = "there is no champion yet: the candidate's own calibration is shown"
        return GateResult.not_asked("calibration", why, notes=notes, tables=tables)
    known = np.isin(evidence.candidate.expected, rival.predictions.labels)
    if not known.any():
        reason = f"champion {rival.called} knows none of the test set's labels"
        return GateResult(gate="calibration", outcome=Outcome.INCONCLUSIVE, reason=reason, notes=notes, tables=tables)
    if not known.all():
        left_out = f"{int(np.sum(~known)):,} rows with a label that the champion does not have are left out of the comparison"
        notes = (*notes, f"{left_out}; the probabilities are those that each model serves, over its own labels")
    found = _compared(evidence, params, f"champion {rival.called}", evidence.candidate.take(known), rival.predictions.take(known))
    return found.model_copy(update={"notes": (*notes, *found.notes), "tables": tables})


def terms(metric: str, predictions: Predictions) -> Floats:
    """Return the Brier score or log-loss of each row (rows,); a label that the model does not have had the probability 0."""
    expected = encode(predictions.expected, predictions.labels)
    if metric == "brier":
        return brier_terms(predictions.probabilities, expected)
    given = predictions.probabilities[np.arange(len(expected)), np.maximum(expected, 0)]
    return np.asarray(-np.log(np.clip(np.where(expected >= 0, given, 0.0), CLIP, 1.0)), dtype=np.float64)


def _compared(evidence: Evidence, params: Params, called: str, mine: Predictions, theirs: Predictions) -> GateResult:
    units, bounds = Units.from_groups(mine.groups), _BOUNDS[params.metric]
    own, other = terms(params.metric, mine), terms(params.metric, theirs)
    estimate = mean_difference(own, other, units, bounds, evidence.confidence)
    gap = f"{params.metric} difference {estimate.value:+.4f} to {called}"
    where = f"gates.calibration.margin {params.margin:g} ({interval(estimate, signed=True)})"
    if units.count == 1:
        estimate = estimate.model_copy(update={"doubt": "a single row or group has no variation"})
    within = estimate.high < params.margin and not estimate.doubt
    if estimate.doubt:
        reason = f"{gap} cannot be held against {where}: {estimate.doubt}"
    else:
        reason = f"{gap} is within {where}" if within else f"{gap} does not settle {where}"
    says = f"{params.metric} is worse than that of {called} by {estimate.value:.4f} ({interval(estimate, signed=True)})"
    p = 1.0 if within else mean_below(other - own, units)
    return result(
        "calibration",
        Outcome.PASS if within else Outcome.INCONCLUSIVE,
        reason,
        params.metric,
        estimate,
        params.margin,
        evidence,
        change=f"{'INCONCLUSIVE with a margin of' if within else 'PASS with a margin above'} {max(estimate.high, 0):.4f}",
        hypotheses=(hypothesis(f"{params.metric} worse than {called}", says, p, params.metric, estimate),),
        notes=(_scores(params.metric, own, other, units, bounds, evidence.confidence),),
    )


def _scores(metric: str, own: Floats, other: Floats, units: Units, bounds: tuple[float, float], confidence: float) -> str:
    both: list[Estimate] = [mean(each, units, bounds, confidence) for each in (own, other)]
    said = [f"{one.value:.4f} ({interval(one)})" for one in both]
    return f"{metric}: candidate {said[0]}, champion {said[1]}"


def _fault(name: str, predictions: Predictions) -> str | None:
    """Return why the probabilities are none; None where they are."""
    usable = np.isfinite(predictions.probabilities).all(axis=1)
    usable &= np.where(usable, (predictions.probabilities >= 0).all(axis=1) & (predictions.probabilities <= 1 + 1e-6).all(axis=1), False)
    wrong = int(np.sum(~usable))
    return f"{name} has probabilities that are none on {wrong:,} of {len(usable):,} rows" if wrong else None


def _unusable(rival: ReferenceModel | None) -> str | None:
    return None if rival is None or rival.predictions is None else _fault(f"champion {rival.called}", rival.predictions)


def _described(evidence: Evidence) -> tuple[tuple[str, ...], tuple[ReportTable, ...]]:
    """Return the calibration error and the reliability of each model, which are shown and decide nothing."""
    models = {"candidate": evidence.candidate}
    if evidence.champion and evidence.champion.predictions is not None:
        models["champion"] = evidence.champion.predictions
    notes, rows = [], []
    for name, predictions in models.items():
        if _fault(name, predictions):
            continue
        confidences, right = np.minimum(predictions.probabilities.max(axis=1), 1.0), predictions.predicted == predictions.expected
        usual, debiased = calibration_error(confidences, right)
        notes.append(f"calibration error of the {name}: {debiased:.3f} debiased ({usual:.3f} as usually reported, biased upwards)")
        rows += [(name, round(one.confidence, 4), round(one.accuracy, 4), one.rows) for one in reliability(confidences, right)]
    columns = ("model", "confidence", "accuracy", "rows")
    return tuple(notes), (ReportTable(title="Reliability: confidence and share of right answers", columns=columns, rows=tuple(rows)),)
