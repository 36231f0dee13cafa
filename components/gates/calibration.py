"""Calibration not worse than the champion's: the paired difference in Brier score or log-loss."""

from typing import Literal

import numpy as np
from pydantic import Field

from components.artifacts.predictions import Predictions
from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Outcome, Remedy
from components.gates.support import Evidence, GateSection, hypothesis, inconclusive, interval, result
from components.gates.support.remedies import beyond, enough_groups
from components.stats.calibration import brier_terms, calibration_error, reliability
from components.stats.means import mean, mean_difference
from components.stats.significance import mean_below
from components.stats.true_classes import encode
from components.stats.units import Floats, Units

CLIP = 1e-6
"""Lower limit of probabilities in log-loss, so that one certain mistake costs 13.8 instead of infinity."""
_BOUNDS = {"brier": (0.0, 2.0), "log_loss": (0.0, float(-np.log(CLIP)))}


class Params(GateSection):
    """Margin by which the candidate's probabilities may be worse than the champion's."""

    metric: Literal["brier", "log_loss"] = Field("brier", description="brier (0 to 2) | log_loss (0 to 13.8, probabilities from 1e-6 on)")
    margin: float = Field(0.01, gt=0, le=1, description="allowed increase, in the metric's unit (0 is best)")


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS if the difference's interval is below the margin, else INCONCLUSIVE; a difference above 0 rejects."""
    if not evidence.classes:
        return GateResult.not_applicable("calibration", "the task has no class probabilities")
    notes, tables = _reliability(evidence)
    fault, champion = _fault("the candidate", evidence.candidate) or evidence.champion_fault, evidence.champion
    name = f"champion {champion.display_name}" if champion else "the champion"
    if champion is not None and champion.predictions is not None:
        fault = fault or _fault(name, champion.predictions)
    if fault:
        return inconclusive("calibration", fault, notes=notes, tables=tables)
    if champion is None or champion.predictions is None:
        reason = "there is no champion yet; the table shows the candidate's calibration"
        return GateResult.not_applicable("calibration", reason, notes=notes, tables=tables)
    known = np.isin(evidence.candidate.expected, champion.predictions.labels)
    if not known.any():
        return inconclusive("calibration", f"{name} knows none of the test set's labels", notes=notes, tables=tables)
    if not known.all():
        excluded = f"{int(np.sum(~known)):,} rows with a label that the champion does not have are excluded from the comparison"
        notes = (*notes, f"{excluded}; each model's probabilities are over its own labels")
    compared = _compare(evidence, params, name, evidence.candidate.take(known), champion.predictions.take(known))
    return compared.model_copy(update={"notes": (*notes, *compared.notes), "tables": tables})


def terms(metric: str, predictions: Predictions) -> Floats:
    """Return the Brier score or log-loss of each row (rows,); a label that the model does not have has probability 0."""
    expected = encode(predictions.expected, predictions.labels)
    if metric == "brier":
        return brier_terms(predictions.probabilities, expected)
    given = predictions.probabilities[np.arange(len(expected)), np.maximum(expected, 0)]
    return np.asarray(-np.log(np.clip(np.where(expected >= 0, given, 0.0), CLIP, 1.0)), dtype=np.float64)


def _compare(evidence: Evidence, params: Params, name: str, candidate: Predictions, champion: Predictions) -> GateResult:
    units, bounds = Units.from_groups(candidate.groups), _BOUNDS[params.metric]
    candidate_terms, champion_terms = terms(params.metric, candidate), terms(params.metric, champion)
    estimate = mean_difference(candidate_terms, champion_terms, units, bounds, evidence.confidence)
    gap = f"{params.metric} difference {estimate.value:+.4f} to {name}"
    limit = f"gates.calibration.margin {params.margin:g} ({interval(estimate, signed=True)})"
    if units.count == 1:
        estimate = estimate.model_copy(update={"doubt": "a single row or group has no variation"})
    within = estimate.high < params.margin and not estimate.doubt
    if estimate.doubt:
        reason = f"{gap} cannot be compared with {limit}: {estimate.doubt}"
    else:
        reason = f"{gap} is within {limit}" if within else f"{gap} is inconclusive for {limit}"
    worse = f"{params.metric} is worse than that of {name} by {estimate.value:.4f} ({interval(estimate, signed=True)})"
    p = 1.0 if within else mean_below(champion_terms - candidate_terms, units)
    hypotheses = (hypothesis(f"{params.metric} worse than {name}", worse, p, params.metric, estimate),)
    scores = [mean(values, units, bounds, evidence.confidence) for values in (candidate_terms, champion_terms)]
    candidate_score, champion_score = (f"{score.value:.4f} ({interval(score)})" for score in scores)
    margin = beyond(estimate.high if within else max(estimate.high, 0.0), not within, estimate.high - estimate.low)
    details = {
        "change": enough_groups(evidence),
        "remedies": (Remedy(outcome=Outcome.INCONCLUSIVE if within else Outcome.PASS, settings={"margin": margin}),),
        "notes": (f"{params.metric}: candidate {candidate_score}, champion {champion_score}",),
    }
    outcome = Outcome.PASS if within else Outcome.INCONCLUSIVE
    return result("calibration", outcome, reason, params.metric, estimate, params.margin, evidence, hypotheses=hypotheses, **details)


def _fault(name: str, predictions: Predictions) -> str | None:
    """Describe invalid probabilities; None if all are valid."""
    usable = np.isfinite(predictions.probabilities).all(axis=1)
    usable &= np.where(usable, (predictions.probabilities >= 0).all(axis=1) & (predictions.probabilities <= 1 + 1e-6).all(axis=1), False)
    invalid = int(np.sum(~usable))
    return f"{name} has invalid probabilities on {invalid:,} of {len(usable):,} rows" if invalid else None


def _reliability(evidence: Evidence) -> tuple[tuple[str, ...], tuple[ReportTable, ...]]:
    """Return the calibration error and the reliability of each model, for information."""
    models = {"candidate": evidence.candidate}
    if evidence.champion and evidence.champion.predictions is not None:
        models["champion"] = evidence.champion.predictions
    notes, rows = [], []
    for name, predictions in models.items():
        if _fault(name, predictions):
            continue
        confidences, correct = np.minimum(predictions.probabilities.max(axis=1), 1.0), predictions.predicted == predictions.expected
        usual, debiased = calibration_error(confidences, correct)
        notes.append(f"calibration error of the {name}: {debiased:.3f} debiased ({usual:.3f} without debiasing)")
        rows += [(name, round(b.confidence, 4), round(b.accuracy, 4), b.rows) for b in reliability(confidences, correct)]
    columns = ("model", "confidence", "accuracy", "rows")
    return tuple(notes), (ReportTable(title="Reliability: confidence and share of correct answers", columns=columns, rows=tuple(rows)),)
