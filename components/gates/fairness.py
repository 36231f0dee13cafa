"""Fairness: a rate on each value of one column against all other rows."""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import scipy
from pydantic import Field, model_validator

from components.artifacts.metrics import Estimate
from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Outcome, Remedy
from components.core.section import nearest
from components.core.text import Label
from components.gates.support import Evidence, GateSection, hypothesis, inconclusive, interval, result
from components.gates.support.remedies import beyond
from components.gates.support.slicing import Slice, by_column, is_large, required_size, test_rows
from components.stats.significance import difference_of_shares
from components.stats.units import Bools, Units, jackknife_variance, symmetric


class Params(GateSection):
    """The column whose values must have similar rates."""

    column: str = Field("", description="a column of the data; empty: the gate has nothing to judge")
    rate: Literal["accuracy", "selection", "true_positive"] = Field(
        "accuracy", description="share of correct answers | of rows predicted as `label` | of rows of `label` predicted as `label`"
    )
    label: Label = Field("", description="required for selection and true_positive")
    max_gap: float = Field(0.05, gt=0, lt=1, description="allowed difference between a value's rate and that of all other rows")
    min_rows: int = Field(
        100,
        ge=50,
        le=1_000_000,
        description="minimum rows of a value, and of all other rows; smaller values are informational. With groups: 50 groups instead",
    )

    @model_validator(mode="after")
    def _check_label(self) -> Self:
        if self.rate != "accuracy" and not self.label:
            raise ValueError(f"rate {self.rate} needs a label: set gates.fairness.label")
        return self


@dataclass(frozen=True)
class _Gap:
    """One value against all other rows: both rates, their difference, and the p-value of "within the limit"."""

    name: str
    rows: int
    groups: int
    rate: float
    others: float
    estimate: Estimate
    p: float
    large: bool


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS if every gap's interval is within the limit, else INCONCLUSIVE; a wider gap rejects."""
    if not params.column:
        return GateResult.not_applicable("fairness", "gates.fairness.column is empty")
    if not evidence.classes:
        return inconclusive("fairness", "rates need classes, and the task has none: leave gates.fairness.column empty")
    rows = test_rows(evidence)
    if isinstance(rows, str):
        return inconclusive("fairness", rows)
    if params.column not in rows.columns:
        columns = ", ".join(name for name in rows.columns if name not in ("id", "text"))
        return inconclusive("fairness", f"gates.fairness.column: no column {params.column!r}; available: {columns}")
    if params.rate != "accuracy" and params.label not in evidence.candidate.labels:
        known = nearest(params.label, list(evidence.candidate.labels))
        return inconclusive("fairness", f"gates.fairness.label: no label {params.label!r}{known}")
    slices, note = by_column(rows, params.column)
    gaps = [gap for part in slices if (gap := _gap(evidence, params, part)) is not None]
    return _decide(evidence, params, sorted(gaps, key=lambda gap: -abs(gap.estimate.value)), (note,) if note else ())


def _gap(evidence: Evidence, params: Params, part: Slice) -> _Gap | None:
    """Compare a value's rows with all others; None if one of the two has no rows to compute the rate on."""
    hits, counted = _hits(evidence, params)
    inside, outside, groups = part.rows & counted, ~part.rows & counted, evidence.units.index
    if not inside.any() or not outside.any():
        return None
    units, other_units = Units.from_groups(groups[inside]), Units.from_groups(groups[outside])
    by_groups = evidence.units.grouped
    if by_groups:
        counted_units, counts = Units.from_groups(groups[counted]), (units.count, other_units.count)
        centre, error, freedom = _by_groups(hits[counted], inside[counted], counted_units, counts)
        method = f"delete-one-group jackknife, t({freedom:.0f})"
    else:
        (centre, error), freedom = difference_of_shares(hits[inside], hits[outside]), np.inf
        method = "Agresti-Caffo, independent rows"
    value = float(hits[inside].mean() - hits[outside].mean())
    half = float(scipy.stats.t.ppf((1 + evidence.confidence) / 2, freedom)) * error
    estimate = symmetric(centre, half, (-1.0, 1.0), n=units.count, method=method, confidence=evidence.confidence)
    estimate = estimate.model_copy(update={"value": value, "low": min(estimate.low, value), "high": max(estimate.high, value)})
    large = all(is_large(side, by_groups, params.min_rows) for side in (units, other_units))
    p = _wider(centre, error, params.max_gap, freedom)
    return _Gap(part.name, units.rows, units.count, float(hits[inside].mean()), float(hits[outside].mean()), estimate, p, large)


def _hits(evidence: Evidence, params: Params) -> tuple[Bools, Bools]:
    """Return the rows that count as hits, and the rows that the rate is computed on."""
    all_rows = np.ones(len(evidence.candidate.ids), dtype=np.bool_)
    if params.rate == "accuracy":
        return evidence.correct, all_rows
    selected = np.asarray(evidence.candidate.predicted == params.label)
    return selected, all_rows if params.rate == "selection" else np.asarray(evidence.candidate.expected == params.label)


def _by_groups(hits: Bools, inside: Bools, units: Units, counts: tuple[int, int]) -> tuple[float, float, float]:
    """Return the difference of the two rates, its delete-one-group standard error, and the degrees of freedom.

    A group may have rows on both sides. If no group differs from another, each counts as one row (Agresti and Caffo).
    """
    sums = [units.sums(side) for side in (hits & inside, inside, hits & ~inside, ~inside)]
    totals = [float(by_group.sum()) for by_group in sums]
    value = totals[0] / totals[1] - totals[2] / totals[3]
    rest = [total - by_group for total, by_group in zip(totals, sums, strict=True)]
    rates = [np.divide(rest[k], rest[k + 1], out=np.full_like(rest[k], totals[k] / totals[k + 1]), where=rest[k + 1] > 0) for k in (0, 2)]
    error = float(np.sqrt(jackknife_variance(value, rates[0] - rates[1])))
    if error < 1e-12:
        shares = [(totals[k] / totals[k + 1] * count + 1) / (count + 2) for k, count in zip((0, 2), counts, strict=True)]
        value = shares[0] - shares[1]
        error = float(np.sqrt(sum(share * (1 - share) / (count + 2) for share, count in zip(shares, counts, strict=True))))
    return value, error, float(max(min(counts) - 1, 1))


def _wider(centre: float, error: float, limit: float, freedom: float) -> float:
    """Return the p-value of "the gap is within ±`limit`": how often a gap of `limit` looks at least as wide, on either side."""
    tails = [float(scipy.stats.t.sf((abs(centre) + side * limit) / error, freedom)) for side in (-1, 1)]
    return min(sum(tails), 1.0)


def _decide(evidence: Evidence, params: Params, gaps: list[_Gap], notes: tuple[str, ...]) -> GateResult:
    table = _table(evidence, params, gaps)
    large = [gap for gap in gaps if gap.large]
    if not large:
        size = required_size(evidence.units.grouped, params.min_rows, "fairness")
        missing = "two values" if len(gaps) < 2 else f"a value with {size}, and as many in all other rows"
        reason = f"gates.fairness.column {params.column!r} does not have {missing}"
        return inconclusive("fairness", reason, notes=notes, tables=(table,))
    undecided = [gap for gap in large if max(gap.estimate.high, -gap.estimate.low) > params.max_gap]
    shown = (undecided or large)[0]
    limit = f"gates.fairness.max_gap {params.max_gap:g}"
    summary = _describe(shown, params)
    reason = f"{summary}, inconclusive for {limit}" if undecided else f"{summary}, the widest of {len(large)}, within {limit}"
    # Two values are complementary: one test, not two.
    hypotheses = tuple(
        hypothesis(f"{_rate(params)} of {gap.name}", f"{_describe(gap, params)}, more than {limit}", gap.p, _rate(params), gap.estimate)
        for gap in (large[:1] if len(gaps) == 2 else large)
    )
    outcome, other = (Outcome.INCONCLUSIVE, Outcome.PASS) if undecided else (Outcome.PASS, Outcome.INCONCLUSIVE)
    widest = max(max(gap.estimate.high, -gap.estimate.low) for gap in large)
    remedy = Remedy(outcome=other, settings={"max_gap": beyond(widest, up=bool(undecided))})
    details = {"remedies": (remedy,), "notes": notes, "tables": (table,)}
    return result("fairness", outcome, reason, _rate(params), shown.estimate, params.max_gap, evidence, hypotheses=hypotheses, **details)


def _describe(gap: _Gap, params: Params) -> str:
    return f"{_rate(params)} of {gap.name} differs by {gap.estimate.value:+.3f} ({interval(gap.estimate, signed=True)})"


def _rate(params: Params) -> str:
    if params.rate == "accuracy":
        return "accuracy"
    return f"{'selection' if params.rate == 'selection' else 'true-positive'} rate of {params.label}"


def _table(evidence: Evidence, params: Params, gaps: list[_Gap]) -> ReportTable:
    columns = ("value", "rows", "groups", "rate", "all others", "gap", "low", "high", "p", "status")
    rows = tuple(
        (
            *(gap.name, gap.rows, gap.groups, round(gap.rate, 4), round(gap.others, 4)),
            *(round(number, 4) for number in (gap.estimate.value, gap.estimate.low, gap.estimate.high)),
            float(f"{gap.p:.4g}"),
            "may reject" if gap.large else "too small",
        )
        for gap in gaps
    )
    title = f"{_rate(params).capitalize()} by {params.column}, {evidence.confidence * 100:.0f} % intervals"
    return ReportTable(title=title, columns=columns, rows=rows)
