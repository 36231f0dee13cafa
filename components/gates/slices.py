"""Worse somewhere, though not on the whole: the candidate against the champion on each value of a column and each built-in slice."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from components.artifacts.metrics import Estimate
from components.artifacts.predictions import Predictions
from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Hypothesis, Outcome
from components.gates.support.evidence import Evidence, GateSection, hypothesis, interval, result
from components.gates.support.slicing import (
    Bools,
    Slice,
    by_column,
    by_length,
    by_rare_words,
    by_values,
    enough,
    grouped,
    needed,
    test_rows,
)
from components.stats import Units, fewer_right, proportion_difference

BuiltIn = Literal["length", "label", "rare_words", "source", "task"]


class Params(GateSection):
    """The parts of the test set on which the candidate must not be worse than the champion."""

    columns: tuple[str, ...] = Field((), description="columns of the data; each value is a slice, of many values the 50 most frequent")
    built_in: tuple[BuiltIn, ...] = Field(
        ("length", "label", "rare_words", "source", "task"),
        description="thirds by characters, expected label, thirds by rare words, `source`, and what the task adds, as entity types",
    )
    min_rows: int = Field(
        100,
        ge=50,
        le=1_000_000,
        description="smaller slices are shown only; with 50 a loss of 10 points is seen, not of 5. With groups: 50 groups instead",
    )


@dataclass(frozen=True)
class _Slice:
    """One slice compared: accuracies, the paired difference, and the p that the candidate is not worse; `large` ones may reject."""

    name: str
    metric: str
    rows: int
    groups: int
    mine: float
    theirs: float
    estimate: Estimate
    p: float
    discordant: int
    large: bool


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS when the slices could be compared, else INCONCLUSIVE; it fails by being worse on a slice that is large enough."""
    rows = test_rows(evidence)
    if isinstance(rows, str):
        return GateResult(gate="slices", outcome=Outcome.INCONCLUSIVE, reason=rows)
    cuts, notes = _cuts(rows, evidence, params)
    fault = _unknown(rows, params)
    rival = evidence.champion
    if rival is None or rival.predictions is None:
        fault = fault or evidence.unscorable
        known: dict[str, Any] = {"notes": notes, "tables": (_accuracies(evidence, cuts),)}
        if fault:
            return GateResult(gate="slices", outcome=Outcome.INCONCLUSIVE, reason=fault, **known)
        return GateResult.not_asked("slices", f"there is no champion yet: {len(cuts)} slices are shown", **known)
    if evidence.classes and (new := int(np.sum(~np.isin(evidence.candidate.expected, rival.predictions.labels)))):
        notes = (*notes, f"{new:,} rows with a label that the champion does not have are left out")
    found = [one for cut in cuts if (one := _compare(evidence, rival.predictions, cut, params.min_rows)) is not None]
    return _decided(evidence, params, f"champion {rival.called}", sorted(found, key=lambda one: one.estimate.value), notes, fault)


def _cuts(rows: pd.DataFrame, evidence: Evidence, params: Params) -> tuple[list[Slice], tuple[str, ...]]:
    """Return the slices that the settings ask for and that there are, and what to say of those that there are not."""
    cuts: list[Slice] = []
    notes: list[str | None] = []
    built_in = [name for name in ("label", "source") if name in params.built_in and (name != "label" or evidence.classes)]
    columns = [*params.columns, *built_in]
    for column in dict.fromkeys(columns):
        if column in rows.columns:
            found, note = by_column(rows, column)
            cuts, notes = [*cuts, *found], [*notes, note]
    for kind, values in evidence.parts.items():
        if "task" in params.built_in and kind not in columns:
            found, note = by_values(values, kind)
            cuts, notes = [*cuts, *found], [*notes, note]
    if "length" in params.built_in:
        cuts += by_length(rows)
    if "rare_words" in params.built_in:
        cuts += by_rare_words(rows, evidence.train) if evidence.train is not None else []
        notes.append(None if evidence.train is not None else "no training rows at hand: rare words are not known")
    if "source" in params.built_in and "source" not in rows.columns:
        notes.append("the data have no column `source`")
    return cuts, tuple(note for note in notes if note)


def _unknown(rows: pd.DataFrame, params: Params) -> str | None:
    """Return what to say of columns that are not there."""
    if not (missing := [name for name in params.columns if name not in rows.columns]):
        return None
    known = ", ".join(name for name in rows.columns if name not in ("id", "text"))
    return f"gates.slices.columns: no column {', '.join(map(repr, missing))}; there are: {known}"


def _compare(evidence: Evidence, champion: Predictions, cut: Slice, min_rows: int) -> _Slice | None:
    """Compare on the slice's rows whose label the champion knows; None where there are none."""
    rows: Bools = cut.rows & np.isin(evidence.candidate.expected, champion.labels) if evidence.classes else cut.rows
    if not rows.any():
        return None
    if not evidence.classes:
        return _compare_by_measure(evidence, champion.take(rows), cut.name, rows, min_rows)
    expected, units = evidence.candidate.expected[rows], Units.from_groups(evidence.units.index[rows])
    mine, theirs = evidence.candidate.predicted[rows] == expected, champion.predicted[rows] == expected
    return _Slice(
        name=cut.name,
        metric="accuracy",
        rows=units.rows,
        groups=units.count,
        mine=float(mine.mean()),
        theirs=float(theirs.mean()),
        estimate=proportion_difference(mine, theirs, units, evidence.confidence),
        p=fewer_right(mine, theirs, units),
        discordant=int(np.sum(mine != theirs)),
        large=enough(units, grouped(evidence), min_rows),
    )


def _compare_by_measure(evidence: Evidence, theirs: Predictions, name: str, rows: Bools, min_rows: int) -> _Slice:
    """Compare by the task's first measure."""
    own, metric = evidence.on(rows), evidence.main
    units = own.units
    return _Slice(
        name=name,
        metric=metric,
        rows=units.rows,
        groups=units.count,
        mine=own.score(metric).value,
        theirs=own.yardstick.score(metric, theirs).value,
        estimate=own.difference(metric, theirs),
        p=own.difference_below(metric, theirs),
        discordant=units.rows,
        large=enough(units, grouped(evidence), min_rows) and own.yardstick.doubt(metric) is None,
    )


def _decided(evidence: Evidence, params: Params, called: str, found: list[_Slice], notes: tuple[str, ...], fault: str | None) -> GateResult:
    """Put the compared slices, the worst first, into a result."""
    large, small = ([one for one in found if one.large is size] for size in (True, False))
    table = _table(evidence, found, len(large))
    if small and (lowest := small[0]).estimate.value < 0:
        notes = (*notes, f"the worst of {len(small)} smaller slices, which reject nothing: {_said(lowest)}")
    if not large:
        reason = fault or f"no slice has {needed(grouped(evidence), params.min_rows, 'slices')}"
        change = "a test set with more groups" if grouped(evidence) else "a larger test set, or gates.slices.min_rows of 50"
        return GateResult(gate="slices", outcome=Outcome.INCONCLUSIVE, reason=reason, change=change, notes=notes, tables=(table,))
    worst = large[0]
    notes = (f"the worst slice: {_said(worst)}", *notes)
    said = f"{len(large)} slices compared with {called}; the worst is {_said(worst)}"
    return result(
        "slices",
        Outcome.INCONCLUSIVE if fault else Outcome.PASS,
        f"{fault}. {said}" if fault else said,
        evidence.main,
        worst.estimate,
        0.0,
        evidence,
        change="FAIL where a slice's difference is below 0 beyond chance, all gates corrected together",
        hypotheses=tuple(_worse(one, called) for one in large),
        notes=notes,
        tables=(table,),
    )


def _worse(one: _Slice, called: str) -> Hypothesis:
    says = f"{one.metric} on {one.name} is worse than that of {called} by {-one.estimate.value:.3f} ({interval(one.estimate, signed=True)})"
    return hypothesis(f"{one.metric} on {one.name} worse than {called}", says, one.p, one.metric, one.estimate)


def _said(one: _Slice) -> str:
    return f"{one.name}, {one.metric} {one.mine:.3f} against {one.theirs:.3f} on {one.rows:,} rows ({interval(one.estimate, signed=True)})"


def _table(evidence: Evidence, found: list[_Slice], tests: int) -> ReportTable:
    """List every slice; with fewer disagreements than log2(20 K) - 1 no mid-p is small enough for K tests at 5 %."""
    fewest = np.log2(20 * max(tests, 1)) - 1

    def standing(one: _Slice) -> str:
        if not one.large:
            return "too small"
        return "cannot decide" if one.rows == one.groups and one.discordant < fewest else "may reject"

    columns = ("slice", "rows", "groups", "candidate", "champion", "difference", "low", "high", "p", "standing")
    cells = [
        (one.name, one.rows, one.groups, one.mine, one.theirs, one.estimate.value, one.estimate.low, one.estimate.high, one.p)
        for one in found
    ]
    rows = tuple((*(_rounded(value) for value in cell), standing(one)) for cell, one in zip(cells, found, strict=True))
    return ReportTable(
        title=f"{evidence.main.capitalize()} by slice, {evidence.confidence * 100:.0f} % intervals", columns=columns, rows=rows
    )


def _accuracies(evidence: Evidence, cuts: list[Slice]) -> ReportTable:
    """List every slice's accuracy, the lowest first."""
    groups = evidence.units.index
    rows = [
        (cut.name, int(cut.rows.sum()), len(np.unique(groups[cut.rows])), _rounded(evidence.on(cut.rows).score(evidence.main).value))
        for cut in cuts
        if cut.rows.any()
    ]
    return ReportTable(
        title=f"{evidence.main.capitalize()} by slice",
        columns=("slice", "rows", "groups", "candidate"),
        rows=tuple(sorted(rows, key=lambda row: row[3])),
    )


def _rounded(value: str | float | int) -> str | float | int:
    return float(f"{value:.4g}") if isinstance(value, float) else value
