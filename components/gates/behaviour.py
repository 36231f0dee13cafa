"""Behaviour: failure rates of perturbed test rows and of user-written cases."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from components.artifacts.behaviour import Behaviour, CaseResult
from components.artifacts.metrics import Estimate
from components.artifacts.table import ReportTable
from components.artifacts.verdict import GateResult, Hypothesis, Outcome, Remedy
from components.core.section import Section
from components.gates.support import Evidence, GateSection, Need, hypothesis, inconclusive, interval
from components.gates.support.evidence import measured
from components.gates.support.evidence_settings import BehaviourSettings
from components.gates.support.remedies import beyond
from components.stats.proportions import proportion, proportion_difference, proportion_rows
from components.stats.significance import fewer_right, share_below
from components.stats.units import Units

NEEDS: frozenset[Need] = frozenset({"behaviour"})
SHOWN = 20


class AtMost(Section):
    """Allowed failure rate of each kind.

    On 400 cases per kind of the worked example, logistic regression on the frozen base (69 % accuracy, 44 characters per text) changed
    its answer for 31 % of typos, 33 % of wide words, 13 % of padding and 10 % of punctuation; the other defaults are judgement calls.
    """

    typos: float = Field(0.5, gt=0, lt=1, description="a letter lost, doubled or swapped in one word")
    case: float = Field(0.25, gt=0, lt=1, description="all capitals, or all small letters")
    width: float = Field(0.5, gt=0, lt=1, description="one word in full-width characters; preprocess.unicode_form NFKC undoes it")
    diacritics: float = Field(0.25, gt=0, lt=1, description="accents and dots left out")
    punctuation: float = Field(0.25, gt=0, lt=1, description="a full stop, typographic quotes and dashes")
    padding: float = Field(0.25, gt=0, lt=1, description="a polite phrase before or after")
    invariance: float = Field(0.25, gt=0, lt=1, description="the user's own invariances")
    directional: float = Field(0.25, gt=0, lt=1, description="the user's directional cases")
    minimum_functionality: float = Field(0.25, gt=0, lt=1, description="cases that every model must answer correctly")


class Params(BehaviourSettings, GateSection):
    """Cases that the gate runs, and their limits."""

    min_cases: int = Field(20, ge=5, description="cases per kind; a kind with fewer is informational")
    margin: float = Field(0.05, gt=0, lt=1, description="allowed increase of the failure rate over the champion's")
    at_most: AtMost = Field(default_factory=AtMost, description="allowed failure rate of each kind")


class _FailureLimit(NamedTuple):
    """A quantity that must be at most `threshold`, which is set at `setting`; `paired` if it is a difference to the champion."""

    kind: str
    description: str
    estimate: Estimate
    threshold: float
    setting: str

    @property
    def paired(self) -> bool:
        return self.setting == "gates.behaviour.margin"

    @property
    def excess(self) -> float:
        return self.estimate.high - self.threshold

    @property
    def met(self) -> bool:
        return not self.estimate.doubt and self.excess <= 0


class _Kind:
    """All cases of one kind: the failure rate, its limits and the hypotheses that may reject."""

    def __init__(self, kind: str, cases: Sequence[CaseResult], evidence: Evidence, params: Params) -> None:
        self.kind, self.cases, self.confidence = kind, cases, evidence.confidence
        self.at_most: float = getattr(params.at_most, kind)
        self.margin = params.margin
        self.gated = len(cases) >= params.min_cases
        self.passed = np.array([not case.candidate.failed for case in cases], dtype=bool)
        self.units = Units.from_groups([case.case.group for case in cases])
        self.failing = proportion(~self.passed, self.units, evidence.confidence)
        both = [case for case in cases if case.champion is not None]
        self.compared = len(both) >= params.min_cases
        self.candidate_passed = np.array([not case.candidate.failed for case in both], dtype=bool)
        self.champion_passed = np.array([case.champion is not None and not case.champion.failed for case in both], dtype=bool)
        self.paired_units = Units.from_groups([case.case.group for case in both]) if both else None

    @property
    def difference(self) -> Estimate | None:
        """The candidate's failure rate minus the champion's, paired by case; None with fewer than two comparable cases."""
        if self.paired_units is None or len(self.candidate_passed) < 2:
            return None
        return proportion_difference(self.champion_passed, self.candidate_passed, self.paired_units, self.confidence)

    def limits(self, champion: str) -> list[_FailureLimit]:
        rate = f"{self.failing.value:.3f} of {len(self.cases)} cases of {self.kind} fail"
        limits = [_FailureLimit(self.kind, rate, self.failing, self.at_most, f"gates.behaviour.at_most.{self.kind}")]
        if self.compared and (difference := self.difference) is not None:
            worse = f"{difference.value:+.3f} more cases of {self.kind} fail than with {champion}"
            limits.append(_FailureLimit(self.kind, worse, difference, self.margin, "gates.behaviour.margin"))
        return limits

    def hypotheses(self, champion: str) -> list[Hypothesis]:
        """Return the ways to fail: too many failures, and more failures than the champion's beyond the margin."""
        limit = f"gates.behaviour.at_most.{self.kind} {self.at_most:g} ({interval(self.failing)})"
        reason = f"{self.failing.value * 100:.1f} % of {len(self.cases)} cases of {self.kind} fail, above {limit}"
        p = share_below(self.passed, 1 - self.at_most, proportion_rows(self.passed, self.units, self.confidence))
        hypotheses = [hypothesis(f"{self.kind}: too many failures", reason, p, "failing cases", self.failing)]
        more = self.difference if self.compared else None
        if more is not None and self.paired_units is not None:
            within = more.high < self.margin and not more.doubt
            p = 1.0 if within else fewer_right(self.candidate_passed, self.champion_passed, self.paired_units)
            reason = f"{self.kind}: {more.value:+.3f} more cases fail than with {champion}, not within "
            reason += f"gates.behaviour.margin {self.margin:g} ({interval(more, signed=True)})"
            hypotheses.append(hypothesis(f"{self.kind}: more failures than {champion}", reason, p, "difference of failing cases", more))
        return hypotheses

    def row(self) -> tuple[str | float | int | bool | None, ...]:
        more, failing = self.difference, self.failing
        champion = float(np.mean(~self.champion_passed)) if len(self.champion_passed) else None
        difference = (more.value, more.low, more.high) if more is not None else (None, None, None)
        interval_ends = failing.value, failing.low, failing.high
        return (self.kind, len(self.cases), self.units.count, *interval_ends, self.at_most, champion, *difference)


def decide(evidence: Evidence, params: Params) -> GateResult:
    """PASS if every kind's intervals are within their limits, else INCONCLUSIVE; a rate above its limit or the champion's rejects."""
    behaviour = evidence.behaviour
    if not evidence.classes:
        return GateResult.not_applicable("behaviour", "cases are texts with one label, and the task has other answers")
    if behaviour is None or not behaviour.tried:
        if not params.kinds and not params.cases:
            return GateResult.not_applicable("behaviour", "gates.behaviour.kinds and cases are empty")
        reason = "no case was run" + (f": {'; '.join(behaviour.notes)}" if behaviour and behaviour.notes else "")
        return inconclusive("behaviour", reason, change="gates.behaviour.kinds or .cases")
    names = dict.fromkeys(case.case.kind for case in behaviour.tried)
    kinds = [_Kind(name, [case for case in behaviour.tried if case.case.kind == name], evidence, params) for name in names]
    gated = [kind for kind in kinds if kind.gated]
    champion = f"champion {evidence.champion.display_name}" if evidence.champion is not None else "the champion"
    limits = [limit for kind in gated for limit in kind.limits(champion)]
    hypotheses = tuple(way for kind in gated for way in kind.hypotheses(champion))
    result = _result(behaviour, kinds, limits, hypotheses, params)
    if not evidence.champion_fault:
        return result
    return result.model_copy(update={"outcome": Outcome.INCONCLUSIVE, "reason": f"{evidence.champion_fault}; {result.reason}"})


def _result(
    behaviour: Behaviour, kinds: list[_Kind], limits: list[_FailureLimit], hypotheses: tuple[Hypothesis, ...], params: Params
) -> GateResult:
    notes = [f"{kind.kind}: {len(kind.cases)} cases, for information only" for kind in kinds if not kind.gated]
    notes += [f"{kind.kind}: {kind.failing.doubt}" for kind in kinds if kind.gated and kind.failing.doubt]
    evidence: dict[str, Any] = {"notes": (*behaviour.notes, *notes), "tables": tuple(_tables(kinds))}
    if not limits:
        reason = f"no kind has gates.behaviour.min_cases {params.min_cases} cases"
        return inconclusive("behaviour", reason, change="more cases, or more test rows", **evidence)
    worst = max(limits, key=lambda limit: (not limit.met, limit.excess))
    undecided = dict.fromkeys(limit.kind for limit in limits if not limit.met)
    summary = f"{worst.description} ({interval(worst.estimate, signed=worst.paired)}, {worst.setting} {worst.threshold:g})"
    return GateResult(
        gate="behaviour",
        outcome=Outcome.INCONCLUSIVE if undecided else Outcome.PASS,
        reason=f"{summary}; undecided: {', '.join(undecided)}" if undecided else f"{summary}, the nearest of {len(limits)} to its limit",
        metric=f"{'difference of ' if worst.paired else ''}failing cases, {worst.kind}",
        threshold=worst.threshold,
        method="Tango, paired by case" if worst.paired else worst.estimate.method,
        remedies=(_remedy(limits, worst, bool(undecided)),),
        hypotheses=hypotheses,
        **measured(worst.estimate),
        **evidence,
    )


def _remedy(limits: list[_FailureLimit], worst: _FailureLimit, undecided: bool) -> Remedy:
    """Return the limits that every undecided kind is within, or the nearest one beyond which the worst kind is undecided."""
    settings: dict[str, float | str] = {}
    for limit in sorted((each for each in limits if not each.met) if undecided else [worst], key=lambda each: each.estimate.high):
        settings[limit.setting.removeprefix("gates.behaviour.")] = beyond(limit.estimate.high, up=undecided)
    return Remedy(outcome=Outcome.PASS if undecided else Outcome.INCONCLUSIVE, settings=settings)


def _tables(kinds: list[_Kind]) -> list[ReportTable]:
    columns = ("kind", "cases", "groups", "failing", "low", "high", "at most", "champion failing", "difference", "difference low")
    tables = [ReportTable(title="Kinds of cases", columns=(*columns, "difference high"), rows=tuple(kind.row() for kind in kinds))]
    failing = [[case for case in kind.cases if case.candidate.failed] for kind in kinds]
    alternating = [cases[turn] for turn in range(max(map(len, failing))) for cases in failing if turn < len(cases)]
    if alternating:
        total = f"{sum(map(len, failing))} fail" + (f", the first {SHOWN}" if len(alternating) > SHOWN else "")
        heads = ("kind", "text", "changed", "answer", "answer to the changed text", "expected", "champion")
        rows = tuple(_case_row(case) for case in alternating[:SHOWN])
        tables.append(ReportTable(title=f"Failing cases ({total})", columns=heads, rows=rows))
    return tables


def _case_row(tried: CaseResult) -> tuple[str | None, ...]:
    case, reply = tried.case, tried.candidate
    before, after, expected = reply.before, reply.after, case.label
    if case.must is not None:
        before = f"{case.label} {reply.probability_before:.3f}"
        after = f"{reply.probability_after:.3f}"
        expected = f"must {case.must} by {'at least' if case.must in ('rise', 'fall') else 'at most'} {case.by:g}"
    champion = None if tried.champion is None else ("fails" if tried.champion.failed else "passes")
    name = case.kind if case.kind == case.name else f"{case.kind}: {case.name}"
    return (name, case.text, case.changed, before, after, expected, champion)
