"""Slices: candidate against champion on each value of a column and on each built-in slice."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from components.artifacts.metrics import Estimate
from components.artifacts.predictions import Predictions
from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Outcome, Remedy
from components.gates.support import Evidence, GateSection, inconclusive, interval, result
from components.gates.support.noninferiority import worse
from components.gates.support.remedies import enough_groups
from components.gates.support.slicing import Slice, by_column, by_length, by_rare_words, by_values, is_large, required_size, test_rows
from components.stats.proportions import proportion_difference
from components.stats.significance import fewer_right
from components.stats.units import Bools, Units

BuiltIn = Literal["length", "label", "rare_words", "source", "task"]


class Params(GateSection):
    """Slices of the test set on which the candidate must not be worse than the champion."""

    columns: tuple[str, ...] = Field((), description="columns of the data; each value is a slice (at most the 50 most frequent values)")
    built_in: tuple[BuiltIn, ...] = Field(
        ("length", "label", "rare_words", "source", "task"),
        description="thirds by characters, expected label, thirds by rare words, `source`, and slices of the task, e.g. entity types",
    )
    min_rows: int = Field(
        100,
        ge=50,
        le=1_000_000,
        description="smaller slices are informational; 50 rows can show a loss of 10 points, not of 5. With groups: 50 groups instead",
    )


@dataclass(frozen=True)
class _SliceComparison:
    """One slice: both scores, the paired difference, and the p-value of "not worse"; only `large` slices may reject."""

    name: str
    metric: str
    rows: int
    groups: int
    candidate: float
    champion: float
    estimate: Estimate
    p: float
    discordant: int
    large: bool

    def __str__(self) -> str:
        scores = f"{self.metric} {self.candidate:.3f} against {self.champion:.3f}"
        return f"{self.name}, {scores} on {self.rows:,} rows ({interval(self.estimate, signed=True)})"


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS if the slices can be compared, else INCONCLUSIVE; a worse score on a large slice rejects."""
    rows = test_rows(evidence)
    if isinstance(rows, str):
        return inconclusive("slices", rows)
    slices, notes = _slices(rows, evidence, params)
    fault = _unknown_columns(rows, params)
    champion = evidence.champion
    if champion is None or champion.predictions is None:
        fault = fault or evidence.champion_fault
        details: dict[str, Any] = {"notes": notes, "tables": (_candidate_table(evidence, slices),)}
        if fault:
            return inconclusive("slices", fault, **details)
        return GateResult.not_applicable("slices", f"there is no champion yet; the table shows {len(slices)} slices", **details)
    if evidence.classes and (new := int(np.sum(~np.isin(evidence.candidate.expected, champion.predictions.labels)))):
        notes = (*notes, f"{new:,} rows with a label that the champion does not have are excluded")
    compared = (_compare(evidence, champion.predictions, part, params.min_rows) for part in slices)
    comparisons = sorted((each for each in compared if each is not None), key=lambda each: each.estimate.value)
    return _decide(evidence, params, f"champion {champion.display_name}", comparisons, notes, fault)


def _slices(rows: pd.DataFrame, evidence: Evidence, params: Params) -> tuple[list[Slice], tuple[str, ...]]:
    """Return the configured slices that exist, and notes on those that do not."""
    slices: list[Slice] = []
    notes: list[str | None] = []
    built_in = [name for name in ("label", "source") if name in params.built_in and (name != "label" or evidence.classes)]
    columns = [*params.columns, *built_in]
    for column in dict.fromkeys(columns):
        if column in rows.columns:
            parts, note = by_column(rows, column)
            slices, notes = [*slices, *parts], [*notes, note]
    for name, values in evidence.task_slices.items():
        if "task" in params.built_in and name not in columns:
            parts, note = by_values(values, name)
            slices, notes = [*slices, *parts], [*notes, note]
    if "length" in params.built_in:
        slices += by_length(rows)
    if "rare_words" in params.built_in:
        slices += by_rare_words(rows, evidence.train) if evidence.train is not None else []
        notes.append(None if evidence.train is not None else "no slices by rare words: the training rows are unavailable")
    if "source" in params.built_in and "source" not in rows.columns:
        notes.append("no slices by source: the data have no column `source`")
    return slices, tuple(note for note in notes if note)


def _unknown_columns(rows: pd.DataFrame, params: Params) -> str | None:
    missing = [name for name in params.columns if name not in rows.columns]
    available = ", ".join(name for name in rows.columns if name not in ("id", "text"))
    return f"gates.slices.columns: no column {', '.join(map(repr, missing))}; available: {available}" if missing else None


def _compare(evidence: Evidence, champion: Predictions, part: Slice, min_rows: int) -> _SliceComparison | None:
    """Compare on the slice's rows whose label the champion knows; None if there are none."""
    rows: Bools = part.rows & np.isin(evidence.candidate.expected, champion.labels) if evidence.classes else part.rows
    if not rows.any():
        return None
    if not evidence.classes:
        return _compare_by_metric(evidence, champion.take(rows), part.name, rows, min_rows)
    expected, units = evidence.candidate.expected[rows], Units.from_groups(evidence.units.index[rows])
    candidate_correct, champion_correct = evidence.candidate.predicted[rows] == expected, champion.predicted[rows] == expected
    return _SliceComparison(
        name=part.name,
        metric="accuracy",
        rows=units.rows,
        groups=units.count,
        candidate=float(candidate_correct.mean()),
        champion=float(champion_correct.mean()),
        estimate=proportion_difference(candidate_correct, champion_correct, units, evidence.confidence),
        p=fewer_right(candidate_correct, champion_correct, units),
        discordant=int(np.sum(candidate_correct != champion_correct)),
        large=is_large(units, evidence.units.grouped, min_rows),
    )


def _compare_by_metric(evidence: Evidence, champion: Predictions, name: str, rows: Bools, min_rows: int) -> _SliceComparison:
    part, metric = evidence.take(rows), evidence.main_metric
    units = part.units
    return _SliceComparison(
        name=name,
        metric=metric,
        rows=units.rows,
        groups=units.count,
        candidate=part.score(metric).value,
        champion=part.metric_set.score(metric, champion).value,
        estimate=part.difference(metric, champion),
        p=part.difference_below(metric, champion),
        discordant=units.rows,
        large=is_large(units, evidence.units.grouped, min_rows) and part.metric_set.doubt(metric) is None,
    )


def _decide(
    evidence: Evidence, params: Params, champion: str, comparisons: list[_SliceComparison], notes: tuple[str, ...], fault: str | None
) -> GateResult:
    large, small = ([each for each in comparisons if each.large is size] for size in (True, False))
    table = _table(evidence, comparisons, len(large))
    if small and small[0].estimate.value < 0:
        notes = (*notes, f"the worst of {len(small)} smaller slices, which cannot reject: {small[0]}")
    if not large:
        reason = fault or f"no slice has {required_size(evidence.units.grouped, params.min_rows, 'slices')}"
        change = None if fault else enough_groups(evidence) or "a larger test set"
        remedy = Remedy(outcome=Outcome.PASS, settings={"min_rows": max((each.rows for each in small), default=0)})
        return inconclusive("slices", reason, change=change, remedies=(remedy,), notes=notes, tables=(table,))
    summary = f"{len(large)} slices compared with {champion}; the worst is {large[0]}"
    outcome, reason = (Outcome.INCONCLUSIVE, f"{fault}. {summary}") if fault else (Outcome.PASS, summary)
    hypotheses = tuple(worse(each.metric, champion, each.p, each.estimate, f" on {each.name}") for each in large)
    change = "FAIL if a slice's difference is significantly below 0, corrected over all gates"
    details = {"notes": (f"the worst slice: {large[0]}", *notes), "tables": (table,), "change": change}
    return result("slices", outcome, reason, evidence.main_metric, large[0].estimate, 0.0, evidence, hypotheses=hypotheses, **details)


def _table(evidence: Evidence, comparisons: list[_SliceComparison], tests: int) -> ReportTable:
    """List every slice; with fewer disagreements than log2(20 K) - 1 no mid-p is small enough for K tests at 5 %."""
    fewest = np.log2(20 * max(tests, 1)) - 1

    def status(part: _SliceComparison) -> str:
        if not part.large:
            return "too small"
        return "cannot decide" if part.rows == part.groups and part.discordant < fewest else "may reject"

    def cells(part: _SliceComparison) -> tuple[str | float | int, ...]:
        scores = part.candidate, part.champion, part.estimate.value, part.estimate.low, part.estimate.high, part.p
        return (part.name, part.rows, part.groups, *map(_round, scores), status(part))

    columns = ("slice", "rows", "groups", "candidate", "champion", "difference", "low", "high", "p", "status")
    title = f"{evidence.main_metric.capitalize()} by slice, {evidence.confidence * 100:.0f} % intervals"
    return ReportTable(title=title, columns=columns, rows=tuple(map(cells, comparisons)))


def _candidate_table(evidence: Evidence, slices: list[Slice]) -> ReportTable:
    """List the candidate's score on every slice, the lowest first."""
    groups, metric = evidence.units.index, evidence.main_metric
    rows = [
        (part.name, int(part.rows.sum()), len(np.unique(groups[part.rows])), _round(evidence.take(part.rows).score(metric).value))
        for part in slices
        if part.rows.any()
    ]
    columns = ("slice", "rows", "groups", "candidate")
    return ReportTable(title=f"{metric.capitalize()} by slice", columns=columns, rows=tuple(sorted(rows, key=lambda row: row[3])))


def _round(value: float) -> float:
    return float(f"{value:.4g}")
