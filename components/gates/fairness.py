"""A rate that differs between groups of people: each value of one column against all other rows."""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import scipy
from pydantic import Field, model_validator

from components.artifacts.metrics import Estimate
from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Hypothesis, Outcome
from components.core.section import nearest
from components.core.text import Label
from components.gates.support.evidence import Evidence, GateSection, hypothesis, interval, result
from components.gates.support.slicing import Bools, Slice, by_column, enough, grouped, needed, test_rows
from components.stats import Units, difference_of_shares
from components.stats.units import jackknife_variance, symmetric


class Params(GateSection):
    """The column whose values must fare alike, and by which rate."""

    column: str = Field("", description="of the data; empty: nothing is asked")
    rate: Literal["accuracy", "selection", "true_positive"] = Field(
        "accuracy", description="share of right answers | of rows answered `label` | of rows that are `label` and are answered so"
    )
    label: Label = Field("", description="for selection and true_positive")
    max_gap: float = Field(0.05, gt=0, lt=1, description="between a value's rate and that of all other rows; a share")
    min_rows: int = Field(
        100,
        ge=50,
        le=1_000_000,
        description="of a value and of all others; with fewer a value is shown only. With groups: 50 groups instead",
    )

    @model_validator(mode="after")
    def _name_the_label(self) -> Self:
        if self.rate != "accuracy" and not self.label:
            raise ValueError(f"rate {self.rate} is that of one label: name it as label")
        return self


@dataclass(frozen=True)
class _Gap:
    """One value against the rest: how many rows, both rates, their difference, and the p that it is within the limit."""

    name: str
    rows: int
    groups: int
    rate: float
    others: float
    estimate: Estimate
    p: float
    large: bool


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS when every gap's interval is within the limit, else INCONCLUSIVE; it fails by a gap that is wider."""
    if not params.column:
        return GateResult.not_asked("fairness", "no column named in gates.fairness.column")
    if not evidence.classes:
        reason = "rates are those of classes, and the task has none: name no column in gates.fairness.column"
        return GateResult(gate="fairness", outcome=Outcome.INCONCLUSIVE, reason=reason)
    rows = test_rows(evidence)
    if isinstance(rows, str):
        return GateResult(gate="fairness", outcome=Outcome.INCONCLUSIVE, reason=rows)
    if params.column not in rows.columns:
        known = ", ".join(name for name in rows.columns if name not in ("id", "text"))
        reason = f"gates.fairness.column: no column {params.column!r}; there are: {known}"
        return GateResult(gate="fairness", outcome=Outcome.INCONCLUSIVE, reason=reason)
    if params.rate != "accuracy" and params.label not in evidence.candidate.labels:
        reason = f"gates.fairness.label: no label {params.label!r}{nearest(params.label, list(evidence.candidate.labels))}"
        return GateResult(gate="fairness", outcome=Outcome.INCONCLUSIVE, reason=reason)
    cuts, note = by_column(rows, params.column)
    gaps = [gap for cut in cuts if (gap := _gap(evidence, params, cut)) is not None]
    return _decided(evidence, params, sorted(gaps, key=lambda gap: -abs(gap.estimate.value)), (note,) if note else ())


def _gap(evidence: Evidence, params: Params, cut: Slice) -> _Gap | None:
    """Compare a value's rows with all others; None where one of the two has no rows to take a rate of."""
    hits, counted = _hits(evidence, params)
    mine, others, groups = cut.rows & counted, ~cut.rows & counted, evidence.units.index
    if not mine.any() or not others.any():
        return None
    here, there = Units.from_groups(groups[mine]), Units.from_groups(groups[others])
    by_groups = grouped(evidence)
    if by_groups:
        centre, error, freedom = _by_groups(hits[counted], mine[counted], Units.from_groups(groups[counted]), (here.count, there.count))
    else:
        (centre, error), freedom = difference_of_shares(hits[mine], hits[others]), np.inf
    value, method = float(hits[mine].mean() - hits[others].mean()), "Agresti-Caffo, independent rows"
    estimate = symmetric(
        centre,
        float(scipy.stats.t.ppf((1 + evidence.confidence) / 2, freedom)) * error,
        (-1.0, 1.0),
        n=here.count,
        method=f"delete-one-group jackknife, t({freedom:.0f})" if by_groups else method,
        confidence=evidence.confidence,
    )
    estimate = estimate.model_copy(update={"value": value, "low": min(estimate.low, value), "high": max(estimate.high, value)})
    large = all(enough(units, by_groups, params.min_rows) for units in (here, there))
    p = _wider(centre, error, params.max_gap, freedom)
    return _Gap(cut.name, here.rows, here.count, float(hits[mine].mean()), float(hits[others].mean()), estimate, p, large)


def _hits(evidence: Evidence, params: Params) -> tuple[Bools, Bools]:
    """Return which rows count as hits, and which rows the rate is taken over."""
    everything = np.ones(len(evidence.candidate.ids), dtype=np.bool_)
    if params.rate == "accuracy":
        return evidence.right, everything
    selected = np.asarray(evidence.candidate.predicted == params.label)
    return selected, everything if params.rate == "selection" else np.asarray(evidence.candidate.expected == params.label)


def _by_groups(hits: Bools, mine: Bools, units: Units, counts: tuple[int, int]) -> tuple[float, float, float]:
    """Return the difference of the two rates, its delete-one-group standard error, and the degrees of freedom.

    A group may have rows on both sides. Where no group differs from another, each counts as one row (Agresti and Caffo).
    """
    sums = [units.sums(side) for side in (hits & mine, mine, hits & ~mine, ~mine)]
    whole = [float(one.sum()) for one in sums]
    value = whole[0] / whole[1] - whole[2] / whole[3]
    left = [total - one for total, one in zip(whole, sums, strict=True)]
    rates = [_divided(left[k], left[k + 1], whole[k] / whole[k + 1]) for k in (0, 2)]
    error = float(np.sqrt(jackknife_variance(value, rates[0] - rates[1])))
    if error < 1e-12:
        shares = [(whole[k] / whole[k + 1] * count + 1) / (count + 2) for k, count in zip((0, 2), counts, strict=True)]
        value = shares[0] - shares[1]
        error = float(np.sqrt(sum(share * (1 - share) / (count + 2) for share, count in zip(shares, counts, strict=True))))
    return value, error, float(max(min(counts) - 1, 1))


def _divided(hits: npt.NDArray[np.float64], rows: npt.NDArray[np.float64], otherwise: float) -> npt.NDArray[np.float64]:
    return np.divide(hits, rows, out=np.full_like(hits, otherwise), where=rows > 0)


def _wider(centre: float, error: float, limit: float, freedom: float) -> float:
    """Return the p that the gap is within ±`limit`: how often a gap of just that would look at least as wide, on either side."""
    tails = [float(scipy.stats.t.sf((abs(centre) + side * limit) / error, freedom)) for side in (-1, 1)]
    return min(sum(tails), 1.0)


def _decided(evidence: Evidence, params: Params, gaps: list[_Gap], notes: tuple[str, ...]) -> GateResult:
    """Put the gaps, the widest first, into a result."""
    table = _table(evidence, params, gaps)
    large = [gap for gap in gaps if gap.large]
    if not large:
        enough_of = f"{needed(grouped(evidence), params.min_rows, 'fairness')}, and as many beside it"
        two = "two values" if len(gaps) < 2 else f"a value that has {enough_of}"
        reason = f"gates.fairness.column {params.column!r} does not have {two}"
        return GateResult(gate="fairness", outcome=Outcome.INCONCLUSIVE, reason=reason, notes=notes, tables=(table,))
    widest = large[0]
    open_ = [gap for gap in large if max(gap.estimate.high, -gap.estimate.low) > params.max_gap]
    shown = open_[0] if open_ else widest
    said = f"{_rate(params)} of {shown.name} differs by {shown.estimate.value:+.3f} ({interval(shown.estimate, signed=True)})"
    limit = f"gates.fairness.max_gap {params.max_gap:g}"
    # Of two values each is all that the other is not: one test, not two.
    tested = large[:1] if len(gaps) == 2 else large
    return result(
        "fairness",
        Outcome.INCONCLUSIVE if open_ else Outcome.PASS,
        f"{said}, which does not settle {limit}" if open_ else f"{said}, the widest of {len(large)}, within {limit}",
        _rate(params),
        shown.estimate,
        params.max_gap,
        evidence,
        change=f"PASS with a limit of {max(max(gap.estimate.high, -gap.estimate.low) for gap in large):.3f}",
        hypotheses=tuple(_unfair(gap, params) for gap in tested),
        notes=notes,
        tables=(table,),
    )


def _unfair(gap: _Gap, params: Params) -> Hypothesis:
    limit = f"gates.fairness.max_gap {params.max_gap:g}"
    says = f"{_rate(params)} of {gap.name} differs by {gap.estimate.value:+.3f} ({interval(gap.estimate, signed=True)}), more than {limit}"
    return hypothesis(f"{_rate(params)} of {gap.name}", says, gap.p, _rate(params), gap.estimate)


def _rate(params: Params) -> str:
    if params.rate == "accuracy":
        return "accuracy"
    return f"{'selection' if params.rate == 'selection' else 'true-positive'} rate of {params.label}"


def _table(evidence: Evidence, params: Params, gaps: list[_Gap]) -> ReportTable:
    columns = ("value", "rows", "groups", "rate", "all others", "gap", "low", "high", "p", "standing")
    rows = tuple(
        (
            *(gap.name, gap.rows, gap.groups, round(gap.rate, 4), round(gap.others, 4)),
            *(round(number, 4) for number in (gap.estimate.value, gap.estimate.low, gap.estimate.high)),
            float(f"{gap.p:.4g}"),
            "may reject" if gap.large else "too small",
        )
        for gap in gaps
    )
    return ReportTable(
        title=f"{_rate(params).capitalize()} by {params.column}, {evidence.confidence * 100:.0f} % intervals", columns=columns, rows=rows
    )
