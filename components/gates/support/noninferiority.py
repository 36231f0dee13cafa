"""Non-inferiority: the paired comparison on one test set that the gates `champion` and `best_champion` share.

A candidate that is worse by no more than the margin passes.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from components.artifacts.metrics import Estimate
from components.artifacts.predictions import Predictions
from components.artifacts.verdict import GateResult, Hypothesis, Outcome, Remedy
from components.gates.support.evidence import Evidence, ReferenceModel, hypothesis, interval, result
from components.gates.support.remedies import enough_groups, margin_beyond
from components.stats.bootstrap import percentile_bootstrap
from components.stats.significance import POWER, mcnemar_two_sided, minimum_detectable, standard_error, units_needed


def compare(
    gate: str, evidence: Evidence, other: Predictions, name: str, metric: str, margin: float, threshold: float, also: Sequence[str] = ()
) -> GateResult:
    """Compare the candidate with `other`: PASS if the difference's interval is above `threshold`; a difference below 0 may reject.

    The power is computed for `margin`. The metrics in `also` do not decide, but may reject.
    """
    estimate = evidence.difference(metric, other)
    setting = f"gates.{gate}.{'margin' if threshold < 0 else 'aim superiority'}{f' {-threshold:g}' if threshold < 0 else ''}"
    gap = f"{metric} difference {estimate.value:+.3f} to {name}"
    limit = f"{setting} ({interval(estimate, signed=True)})"
    if estimate.doubt:
        outcome, reason = Outcome.INCONCLUSIVE, f"{gap} cannot be compared with {limit}: {estimate.doubt}"
    elif estimate.low > threshold:
        outcome, reason = Outcome.PASS, f"{gap} is within {limit}" if threshold < 0 else f"{gap} is above {limit}"
    else:
        outcome, reason = Outcome.INCONCLUSIVE, f"{gap} is inconclusive for {limit}; {_needed(evidence, estimate, margin)[1]}"
    # If the margin is proven, the hypothesis stays in the family and cannot reject.
    p = 1.0 if outcome is Outcome.PASS else evidence.difference_below(metric, other)
    hypotheses = [worse(metric, name, p, estimate)]
    for extra in (extra for extra in also if extra != metric):
        hypotheses.append(worse(extra, name, evidence.difference_below(extra, other), evidence.difference(extra, other)))
    change = enough_groups(evidence)
    if outcome is Outcome.INCONCLUSIVE and not estimate.doubt:
        helps, needed = _needed(evidence, estimate, margin)
        change = needed if helps else None
    details = {"hypotheses": tuple(hypotheses), "change": change, "notes": tuple(_notes(evidence, other, metric, estimate))}
    return result(gate, outcome, reason, metric, estimate, threshold, evidence, remedies=(_remedy(outcome, estimate, margin),), **details)


def margin_faults(metric: str, margin: float, metrics: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    """Yield a fault if the `margin` is as large as the largest possible difference of the metric; `metrics` are bounds by name."""
    low, high = metrics.get(metric, (0.0, np.inf))
    if margin >= high - low:
        yield f"margin: expected less than {high - low:g}, the largest possible difference of the metric"


def worse(metric: str, champion: str, p: float, estimate: Estimate, where: str = "") -> Hypothesis:
    """Return the hypothesis "worse than the champion", on all rows or on those that ` on …` describes."""
    reason = f"{metric}{where} is worse than that of {champion} by {-estimate.value:.3f} ({interval(estimate, signed=True)})"
    return hypothesis(f"{metric}{where} worse than {champion}", reason, p, metric, estimate)


def common_rows(evidence: Evidence, other: Predictions, reference: ReferenceModel) -> tuple[Evidence, Predictions] | None:
    """Return evidence and `other`, the predictions of `reference`, on rows whose labels both models know; None if there are none."""
    known = np.isin(evidence.candidate.expected, other.labels) if evidence.classes else reference.known_rows
    if known is None or known.all():
        return evidence, other
    return (evidence.take(known), other.take(known)) if known.any() else None


def new_labels(evidence: Evidence, other: Predictions, reference: ReferenceModel) -> list[str]:
    """Return the labels that only the candidate knows."""
    return sorted(set(evidence.candidate.labels) - set(other.labels) if evidence.classes else reference.unknown_labels)


def unknown_labels(evidence: Evidence, other: Predictions, reference: ReferenceModel) -> str:
    """Describe the labels that only one of the two models knows; "" if both know all."""
    new = new_labels(evidence, other, reference)
    removed = sorted(set(other.labels) - set(evidence.candidate.labels))
    parts = [f"only the candidate knows {', '.join(new)}"] * bool(new)
    return "; ".join(parts + [f"only the other model knows {', '.join(removed)}"] * bool(removed))


def _needed(evidence: Evidence, estimate: Estimate, margin: float) -> tuple[bool, str]:
    """Return whether more test rows can help, and how many an equal model needs; with margin 0, a model better by this estimate."""
    needed = units_needed(estimate, evidence.units, margin, evidence.level)
    unit = "groups" if evidence.units.grouped else "rows"
    if needed is None:
        cause = "the difference already exceeds the margin" if margin else "the candidate is not better"
        return False, f"no number of test {unit} would pass it: {cause}"
    model = "an equal model" if margin else "a model that is better by this difference"
    return True, f"with {needed:,} test {unit} (now {estimate.n:,}) {model} passes in {POWER:.0%} of cases".replace("%", " %")


def _remedy(outcome: Outcome, estimate: Estimate, margin: float) -> Remedy:
    """Return the nearest margin with another outcome; a gate without a margin needs another aim for one."""
    if outcome is Outcome.PASS:
        return Remedy(outcome=Outcome.INCONCLUSIVE, settings={"margin": margin_beyond(estimate, up=False)})
    aim = {} if margin else {"aim": "non_inferiority"}
    return Remedy(outcome=Outcome.PASS, settings={**aim, "margin": margin_beyond(estimate, up=True)})


def _notes(evidence: Evidence, other: Predictions, metric: str, estimate: Estimate) -> list[str]:
    error = standard_error(estimate, evidence.units)
    power = f"{POWER:.0%}".replace("%", " %")
    notes = [f"minimum detectable effect: {minimum_detectable(error, evidence.level):.3f} ({power} power, one-sided {evidence.level:.2%})"]
    if not evidence.classes:
        return notes
    candidate_correct, other_correct = evidence.correct, other.predicted == evidence.candidate.expected
    gained, lost = int(np.sum(candidate_correct & ~other_correct)), int(np.sum(other_correct & ~candidate_correct))
    p = mcnemar_two_sided(gained, lost)
    notes.append(f"McNemar: only the candidate is correct on {gained} rows, only the other model on {lost}, mid-p {p:.3g}")
    estimator = evidence.metric_set.estimator(metric)
    if evidence.crosscheck and estimator.counts_difference:
        answers = evidence.candidate.predicted, other.predicted
        low, high = percentile_bootstrap(estimator.counts_difference, evidence.truth, *answers, evidence.confidence)
        notes.append(f"cross-check, percentile bootstrap: {low:+.3f} to {high:+.3f}")
    return [*notes, *left_out_notes(evidence, metric)]


def left_out_notes(evidence: Evidence, metric: str) -> tuple[str, ...]:
    """Return a note that names the classes that a metric ignores, because too few test rows have them."""
    rare = evidence.metric_set.estimator(metric).left_out
    return (f"too rare for {metric} (evaluate.min_class_units): {', '.join(rare)}",) if rare else ()
