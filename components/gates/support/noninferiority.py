"""Not worse than an earlier version: the comparison that the gates `champion` and `anchor` share, row by row on the same test set.

Inside the margin is what the margin means: a candidate that is a little worse, and by no more than the margin, passes.
"""

from collections.abc import Sequence

import numpy as np

from components.artifacts.metrics import Estimate
from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Hypothesis, Outcome
from components.gates.support.evidence import Evidence, ReferenceModel, hypothesis, interval, result
from components.stats import POWER, Truth, mcnemar_two_sided, minimum_detectable, percentile_bootstrap, standard_error, units_needed


def compare(
    gate: str, evidence: Evidence, other: Predictions, called: str, metric: str, margin: float, threshold: float, also: Sequence[str] = ()
) -> GateResult:
    """Hold the candidate against `other`: PASS when the difference's interval is above `threshold`; it fails by being worse than 0.

    `margin` is what the power is worked out for. The metrics `also` do not decide, but may reject by being worse.
    """
    estimate = evidence.difference(metric, other)
    setting = f"gates.{gate}.{'margin' if threshold < 0 else 'aim superiority'}{f' {-threshold:g}' if threshold < 0 else ''}"
    gap = f"{metric} difference {estimate.value:+.3f} to {called}"
    where = f"{setting} ({interval(estimate, signed=True)})"
    if estimate.doubt:
        outcome, reason = Outcome.INCONCLUSIVE, f"{gap} cannot be held against {where}: {estimate.doubt}"
    elif estimate.low > threshold:
        outcome, reason = Outcome.PASS, f"{gap} is within {where}" if threshold < 0 else f"{gap} is above {where}"
    else:
        outcome, reason = Outcome.INCONCLUSIVE, f"{gap} does not settle {where}; {_needed(evidence, estimate, margin)[1]}"
    ways = [_worse(evidence, other, metric, called, settled=outcome is Outcome.PASS)]
    ways += [_worse(evidence, other, name, called) for name in also if name != metric]
    return result(
        gate,
        outcome,
        reason,
        metric,
        estimate,
        threshold,
        evidence,
        change=_change(estimate, threshold, evidence, margin),
        hypotheses=tuple(ways),
        notes=tuple(_notes(evidence, other, metric, estimate)),
    )


def common_rows(evidence: Evidence, other: Predictions, rival: ReferenceModel) -> tuple[Evidence, Predictions] | None:
    """Return evidence and `other`, the rival's answers, on the rows whose labels both models know; None where there are none."""
    known = np.isin(evidence.candidate.expected, other.labels) if evidence.classes else rival.known
    if known is None or known.all():
        return evidence, other
    return (evidence.on(known), other.take(known)) if known.any() else None


def new_labels(evidence: Evidence, other: Predictions, rival: ReferenceModel) -> list[str]:
    """Return the labels that the candidate alone knows."""
    return sorted(set(evidence.candidate.labels) - set(other.labels) if evidence.classes else rival.unknown)


def unknown_labels(evidence: Evidence, other: Predictions, rival: ReferenceModel) -> str:
    """Say which labels only one of the two knows."""
    new = new_labels(evidence, other, rival)
    gone = sorted(set(other.labels) - set(evidence.candidate.labels))
    said = [f"the candidate alone knows {', '.join(new)}"] * bool(new) + [f"the other alone knows {', '.join(gone)}"] * bool(gone)
    return "; ".join(said)


def _worse(evidence: Evidence, other: Predictions, metric: str, called: str, settled: bool = False) -> Hypothesis:
    """Return the way to fail by being worse; where the margin is proven it stays in the family and cannot reject."""
    estimate = evidence.difference(metric, other)
    says = f"{metric} is worse than that of {called} by {-estimate.value:.3f} ({interval(estimate, signed=True)})"
    p = 1.0 if settled else evidence.difference_below(metric, other)
    return hypothesis(f"{metric} worse than {called}", says, p, metric, estimate)


def _needed(evidence: Evidence, estimate: Estimate, margin: float) -> tuple[bool, str]:
    """Say whether more test rows can help, and how many an equal model needs; with margin 0, one as much better as this one seems."""
    needed = units_needed(estimate, evidence.units, margin, evidence.level)
    kind = "groups" if evidence.units.grouped else "rows"
    if needed is None:
        why = "the difference is beyond the margin already" if margin else "the candidate is not better"
        return False, f"no number of test {kind} would pass it: {why}"
    model = "an equal model" if margin else "a model that is truly so much better"
    return True, f"with {needed:,} test {kind} (now {estimate.n:,}) {model} passes in {POWER:.0%} of cases".replace("%", " %")


def _change(estimate: Estimate, threshold: float, evidence: Evidence, margin: float) -> str:
    if estimate.low > threshold:
        return f"INCONCLUSIVE with a margin of {max(-estimate.low, 0):.3f} or less" if margin else "INCONCLUSIVE with fewer test rows"
    looser = "a margin" if margin else "aim: non_inferiority and a margin"
    helps, needed = _needed(evidence, estimate, margin)
    return f"PASS with {looser} above {max(-estimate.low, 0):.3f}" + (f", or: {needed}" if helps else "")


def _notes(evidence: Evidence, other: Predictions, metric: str, estimate: Estimate) -> list[str]:
    error = standard_error(estimate, evidence.units)
    power = f"{POWER:.0%}".replace("%", " %")
    notes = [f"minimum detectable effect: {minimum_detectable(error, evidence.level):.3f} ({power} power, one-sided {evidence.level:.2%})"]
    if not evidence.classes:
        return notes
    truth, mine, theirs = evidence.truth, evidence.candidate.predicted, other.predicted
    right, others = mine == evidence.candidate.expected, theirs == evidence.candidate.expected
    gained, lost = int(np.sum(right & ~others)), int(np.sum(others & ~right))
    notes.append(f"McNemar: {gained} rows only the candidate has right, {lost} only the other, mid-p {mcnemar_two_sided(gained, lost):.3g}")
    if evidence.crosscheck:
        low, high = percentile_bootstrap(metric, truth, mine, theirs, evidence.confidence)
        notes.append(f"cross-check, percentile bootstrap: {low:+.3f} to {high:+.3f}")
    return notes + _left_out(truth, metric)


def _left_out(truth: Truth, metric: str) -> list[str]:
    if metric != "macro_f1" or not truth.left_out:
        return []
    return [f"too rare for macro-F1 (evaluate.min_class_units): {', '.join(truth.left_out)}"]
